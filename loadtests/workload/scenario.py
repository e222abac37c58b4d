"""A scenario: the endpoint, the users, their arrivals, their SLOs. Frozen, checked when built.

A scenario is a YAML file under workload/scenarios/, or any other; docs/load-testing.md lists every key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from serving.config.base import FrozenConfig, validated
from serving.config.yaml_file import read_mapping

Kind = Literal["chat", "multi_turn", "rag", "agent", "summarise", "embeddings"]
MOST_TOKENS = 2_000_000
Positive = Annotated[float, Field(gt=0)]


class TokensConfig(FrozenConfig):
    """A distribution of token counts, log-normal around `mean` and cut at `min` and `max`.

    `cv` is the coefficient of variation; 0 makes every draw `mean`. A plain number stands for `mean`.
    """

    mean: float = Field(gt=0, le=MOST_TOKENS)
    cv: float = Field(default=0.0, ge=0, le=10)
    min: int = Field(default=1, ge=1)
    max: int = Field(default=MOST_TOKENS, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"mean": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is larger than max ({self.max})")
        return self

    @property
    def log_normal(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm, before anything is cut."""
        variance = math.log1p(self.cv**2)
        return math.log(self.mean) - variance / 2, math.sqrt(variance)


class SloConfig(FrozenConfig):
    """The limits of a good request, from the intended send; limits that are not set do not count."""

    ttft_ms: float | None = Field(default=None, gt=0)
    itl_ms: float | None = Field(default=None, gt=0)
    tpot_ms: float | None = Field(default=None, gt=0)
    e2e_ms: float | None = Field(default=None, gt=0)
    # The share of all requests, failures included, that must be good.
    target: float = Field(default=0.95, gt=0, lt=1)


class ClassConfig(FrozenConfig):
    """One kind of user: what is asked, how long, of which model, as which tenant.

    `shared_prefix_tokens` begin every prompt of the class (a system prompt, a document); of a multi-turn or
    agent conversation `turns` requests follow each other, `think_s` after the answer.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    kind: Kind = "chat"
    weight: float = Field(default=1.0, gt=0)
    model: str
    tenant: str = Field(default="default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    input_tokens: TokensConfig = TokensConfig(mean=64, cv=0.5, min=8)
    output_tokens: TokensConfig = TokensConfig(mean=32, cv=0.5)
    shared_prefix_tokens: int = Field(default=0, ge=0)
    # Your own prompts instead of synthetic ones: a file of JSON lines with the key `prompt`, in order.
    prompts: str | None = None
    turns: int = Field(default=1, ge=1, le=1000)
    think_s: float = Field(default=1.0, ge=0)
    stream: bool = True
    slo: SloConfig = SloConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.turns > 1 and self.kind not in ("multi_turn", "agent"):
            raise ValueError(f"turns needs kind multi_turn or agent, not {self.kind}")
        if self.kind == "embeddings" and (self.slo.ttft_ms or self.slo.itl_ms or self.slo.tpot_ms):
            raise ValueError("embeddings have no first token: only slo.e2e_ms applies")
        return self


class ArrivalsConfig(FrozenConfig):
    """The arrivals of load. `closed` keeps `users` busy; the others are open loops, planned before the run.

    constant, poisson: `rate_per_s`. gamma: the same with bursts of variation `cv`. ramp: from `rate_per_s` to
    `to_per_s`. steps: `rates_per_s`, each for `duration_s` / their number. trace: the times and lengths of
    `trace`, a file in `format`, played `speed` times as fast.
    """

    kind: Literal["closed", "constant", "poisson", "gamma", "ramp", "steps", "trace"] = "poisson"
    users: int = Field(default=8, ge=1, le=100_000)
    spawn_per_s: float = Field(default=100.0, gt=0)
    rate_per_s: float = Field(default=1.0, gt=0, le=100_000)
    to_per_s: float | None = Field(default=None, gt=0, le=100_000)
    rates_per_s: tuple[Positive, ...] = ()
    cv: float = Field(default=2.0, gt=0, le=20)
    trace: str | None = None
    format: Literal["mooncake", "azure", "burstgpt"] = "mooncake"
    speed: float = Field(default=1.0, gt=0, le=1000)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "ramp" and self.to_per_s is None:
            raise ValueError("a ramp needs to_per_s")
        if self.kind == "steps" and not self.rates_per_s:
            raise ValueError("steps need rates_per_s")
        if self.kind == "trace" and self.trace is None:
            raise ValueError("a trace needs the key trace, a file")
        return self


class TargetConfig(FrozenConfig):
    """The endpoint. `keys`: by tenant, the name of the environment variable that holds its API key."""

    url: str = "http://127.0.0.1:8000"
    keys: Mapping[str, str] = Field(default_factory=dict)
    # By model: a folder with tokenizer.json, such a file, or tiny:FAMILY. Prompts get exact lengths by it;
    # without one they are counted by characters.
    tokenizers: Mapping[str, str] = Field(default_factory=dict)
    # Where metrics are scraped while it runs: the gateway's /metrics, engines' or exporters' addresses.
    metrics: tuple[str, ...] = ()
    # The variable with the API key for that (scope metrics); by default the first tenant's, which sees less.
    metrics_key: str | None = None
    scrape_s: float = Field(default=1.0, ge=0.1, le=60)
    timeout_s: float = Field(default=120.0, gt=0, le=3600)
    verify_tls: bool = True


class ValidityConfig(FrozenConfig):
    """When a run says nothing about the server because the generator was at fault."""

    max_send_lag_p99_ms: float = Field(default=10.0, gt=0)
    max_loop_lag_p99_ms: float = Field(default=10.0, gt=0)
    max_missing_share: float = Field(default=0.0, ge=0, le=1)


class Scenario(FrozenConfig):
    """Everything about one run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    description: str = ""
    target: TargetConfig = TargetConfig()
    classes: tuple[ClassConfig, ...] = Field(min_length=1)
    arrivals: ArrivalsConfig = ArrivalsConfig()
    duration_s: float = Field(default=60.0, gt=0, le=7 * 86_400)
    # Of all classes together; the run ends with the last answer.
    max_requests: int | None = Field(default=None, ge=1)
    # Requests sent in the first so many seconds are recorded and not counted.
    warmup_s: float = Field(default=5.0, ge=0)
    # How long answers may still come after the last send.
    drain_s: float = Field(default=60.0, ge=0, le=3600)
    seed: int = Field(default=1, ge=0)
    validity: ValidityConfig = ValidityConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [one.name for one in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name")
        if self.warmup_s >= self.duration_s:
            raise ValueError(
                f"warmup_s ({self.warmup_s:g}) leaves nothing of duration_s ({self.duration_s:g})"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Scenario:
        """Read a file; traces and prompts that it names are found beside it.

        Raises:
            ConfigError: naming the key that does not fit.
        """
        scenario = validated(cls, read_mapping(path), str(path))
        return scenario._beside(path.resolve().parent)

    def _beside(self, folder: Path) -> Scenario:
        """With absolute names of the files that it names."""
        arrivals = self.arrivals
        if arrivals.trace is not None:
            arrivals = arrivals.model_copy(update={"trace": str(folder / arrivals.trace)})
        classes = tuple(
            one
            if one.prompts is None
            else one.model_copy(update={"prompts": str(folder / one.prompts)})
            for one in self.classes
        )
        return self.model_copy(update={"arrivals": arrivals, "classes": classes})
