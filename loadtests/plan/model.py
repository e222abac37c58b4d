"""The plan file: users, traffic, models, hardware, site. Checked when built.

Every number that nobody knows exactly may be a range, `{low: 1, typical: 2, high: 4}`; a plain number
stands for all three. docs/capacity-planning.md lists the keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from loadtests.workload.scenario import SloConfig
from serving.catalogue.gpus import GPUS, GPUS_PER_NODE
from serving.config.base import FrozenConfig, validated
from serving.config.yaml_file import read_mapping

Level = Literal["low", "typical", "high"]
LEVELS: tuple[Level, ...] = ("low", "typical", "high")
CPU = "cpu"
DATA = Path(__file__).with_name("data")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,95}$"


class Span(FrozenConfig):
    """A number nobody knows exactly. In a file also just a number."""

    low: float
    typical: float
    high: float

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, str):
            # YAML takes 1e6 for text, unlike people.
            with contextlib.suppress(ValueError):
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            if not isinstance(value, dict | Span):
                raise ValueError(
                    "must be a number, or a range such as {low: 1, typical: 2, high: 4}"
                )
            return value
        return {"low": value, "typical": value, "high": value}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.typical <= self.high:
            raise ValueError(
                f"must rise from low ({self.low:g}) over typical ({self.typical:g}) "
                f"to high ({self.high:g})"
            )
        return self

    def at(self, level: Level) -> float:
        """One of the three."""
        return {"low": self.low, "typical": self.typical, "high": self.high}[level]

    @property
    def is_exact(self) -> bool:
        """Whether it is known exactly."""
        return self.low == self.high


def span(low: float, typical: float, high: float) -> Span:
    """A range of assumptions."""
    return Span(low=low, typical=typical, high=high)


def _within(minimum: float, maximum: float, *, or_equal: bool) -> AfterValidator:
    def check(value: Span) -> Span:
        low_ok = value.low >= minimum if or_equal else value.low > minimum
        if not low_ok or value.high > maximum:
            least = "at least" if or_equal else "above"
            upper = "" if maximum == float("inf") else f" and at most {maximum:g}"
            wrong = value.low if not low_ok else value.high
            raise ValueError(f"must be {least} {minimum:g}{upper}, not {wrong:g}")
        return value

    return AfterValidator(check)


_ANY = float("inf")
PositiveSpan = Annotated[Span, _within(0, _ANY, or_equal=False)]
NonNegativeSpan = Annotated[Span, _within(0, _ANY, or_equal=True)]
ShareSpan = Annotated[Span, _within(0, 1, or_equal=False)]
FactorSpan = Annotated[Span, _within(1, _ANY, or_equal=True)]
GrowthSpan = Annotated[Span, _within(-0.99, 100, or_equal=True)]


class GrowthConfig(FrozenConfig):
    """How many more users there will be: `factor` times, or `per_year` (0.5: half more) over `months`."""

    factor: PositiveSpan | None = None
    per_year: GrowthSpan | None = None
    months: float | None = Field(default=None, gt=0, le=240)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.factor is not None and (self.per_year is not None or self.months is not None):
            raise ValueError("give either factor, or per_year with months, not both")
        if (self.per_year is None) != (self.months is None):
            raise ValueError("per_year and months need each other: {per_year: 0.5, months: 18}")
        return self

    def factor_at(self, level: Level) -> float:
        """How many times as many users."""
        if self.factor is not None:
            return self.factor.at(level)
        if self.per_year is not None and self.months is not None:
            return float((1 + self.per_year.at(level)) ** (self.months / 12))
        return 1.0

    @property
    def is_exact(self) -> bool:
        """Whether it is known exactly."""
        return all(one is None or one.is_exact for one in (self.factor, self.per_year))


class TrafficConfig(FrozenConfig):
    """One class of requests: its share of all, its lengths, how long a user waits before asking again.

    `slo` may be left out where a sweep says it. `total_tokens_p95` is prompt and answer of a long request.
    `think_s` is needed where a plan counts users, and not where it gives `rate_per_s`.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    share: float = Field(gt=0)
    model: str = Field(pattern=NAME)
    input_tokens: float = Field(ge=1, le=2_000_000)
    output_tokens: float = Field(ge=1, le=2_000_000)
    total_tokens_p95: float | None = Field(default=None, gt=0)
    think_s: NonNegativeSpan | None = None
    slo: SloConfig | None = None


class HostedConfig(FrozenConfig):
    """One model: on what, and what bounds its batch. Keys that a sweep knows may be left out.

    `max_num_seqs` and `kv_cache_tokens` ("GPU KV cache size" in vLLM's log) bound the requests in flight.
    `catalogue`, `quantisation` and `kv_bytes_per_token` matter to estimates only.
    """

    gpu: str | None = None
    gpus_per_replica: int | None = Field(default=None, ge=1, le=4096)
    max_num_seqs: int | None = Field(default=None, ge=1)
    kv_cache_tokens: int | None = Field(default=None, ge=1)
    catalogue: str | None = None
    quantisation: str | None = None
    kv_bytes_per_token: PositiveSpan | None = None

    @field_validator("gpu")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        lower = None if value is None else value.lower()
        if lower not in (None, CPU, *GPUS):
            raise ValueError(f"{value!r} is unknown; known: {', '.join(GPUS)}, {CPU}")
        return lower


class SiteConfig(FrozenConfig):
    """Where it runs, and what that costs. Prices and watts by GPU kind, `cpu` for replicas without GPUs.

    `board_w` is what a GPU draws at most, the catalogue's figure by default. `idle_share` and `busy_share` of
    it are drawn without and with requests; `overhead_w` per GPU is the rest of the server.
    """

    country: str | None = None
    grid_gco2e_per_kwh: PositiveSpan | None = None
    pue: FactorSpan = span(1.1, 1.3, 1.6)
    gpus_per_node: int = Field(default=GPUS_PER_NODE, ge=1, le=1024)
    hours_per_month: float = Field(default=730.0, gt=0, le=744)
    # Whether whole nodes are paid for, or only the GPUs that are used.
    billing: Literal["gpu", "node"] = "gpu"
    eur_per_gpu_hour: Mapping[str, PositiveSpan] = Field(default_factory=dict)
    board_w: Mapping[str, PositiveSpan] = Field(default_factory=dict)
    idle_share: ShareSpan = span(0.1, 0.15, 0.25)
    busy_share: ShareSpan = span(0.5, 0.7, 0.9)
    overhead_w: NonNegativeSpan = span(75, 125, 250)

    @field_validator("eur_per_gpu_hour", "board_w")
    @classmethod
    def _known(cls, value: Mapping[str, Span]) -> Mapping[str, Span]:
        for kind in value:
            if kind not in (CPU, *GPUS):
                raise ValueError(f"{kind!r} is unknown; known: {', '.join(GPUS)}, {CPU}")
        return value

    @field_validator("country")
    @classmethod
    def _in_table(cls, value: str | None) -> str | None:
        if value is None:
            return None
        code = {"GB": "UK", "EL": "GR"}.get(value.upper(), value.upper())
        known = grid_table()["gco2e_per_kwh"]
        if code not in known:
            raise ValueError(
                f"{value!r} is not in the table of grid intensities; known: {', '.join(known)}; "
                "or leave it out and set grid_gco2e_per_kwh"
            )
        return code

    @model_validator(mode="after")
    def _one_intensity(self) -> Self:
        if self.country is not None and self.grid_gco2e_per_kwh is not None:
            raise ValueError("give either country or grid_gco2e_per_kwh, not both")
        if self.idle_share.typical > self.busy_share.typical:
            raise ValueError("idle_share is larger than busy_share")
        return self

    @property
    def intensity(self) -> Span | None:
        """Grams of CO2 equivalent per kWh."""
        if self.country is not None:
            value = grid_table()["gco2e_per_kwh"][self.country]
            return span(value, value, value)
        return self.grid_gco2e_per_kwh


class PlanConfig(FrozenConfig):
    """A plan.

    `active_share` of the users work at the busiest ordinary time, or `rate_per_s` requests come then; the
    peak is `peak_factor` times that. `mean_share` is the mean load of a month over the peak: it decides what
    a token costs, not how many replicas there are. Where cost is split, an output token counts as
    `output_weight` input tokens.
    """

    name: str = Field(default="plan", pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    description: str = ""
    users: PositiveSpan | None = None
    active_share: ShareSpan | None = None
    rate_per_s: PositiveSpan | None = None
    peak_factor: FactorSpan = span(1, 1, 1)
    growth: GrowthConfig = GrowthConfig()
    utilisation: float = Field(default=0.8, gt=0, le=1)
    spares: int = Field(default=1, ge=0, le=64)
    failure_domain: Literal["replica", "node"] = "replica"
    mean_share: ShareSpan = span(0.2, 0.35, 0.5)
    output_weight: float = Field(default=4.0, gt=0, le=100)
    traffic: tuple[TrafficConfig, ...] = Field(min_length=1)
    models: Mapping[Annotated[str, Field(pattern=NAME)], HostedConfig] = Field(default_factory=dict)
    site: SiteConfig = SiteConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rate_per_s is not None and (self.users or self.active_share):
            raise ValueError("give either rate_per_s, or users with active_share, not both")
        if self.rate_per_s is None and (self.users is None or self.active_share is None):
            missing = "active_share" if self.users is not None else "users"
            raise ValueError(f"{missing}: is required: users with active_share, or rate_per_s")
        for one in self.traffic:
            if self.users is not None and one.think_s is None:
                raise ValueError(
                    f"traffic.{one.name}.think_s: is required where users are counted: the seconds "
                    "between an answer and the user's next request"
                )
        names = [one.name for one in self.traffic]
        if len(set(names)) != len(names):
            raise ValueError("traffic: two classes have the same name")
        used = {one.model for one in self.traffic}
        for name in self.models:
            if name not in used:
                raise ValueError(f"models.{name}: no class of traffic asks it: remove it")
        return self

    def hosted(self, model: str) -> HostedConfig:
        """What the plan says of a model."""
        return self.models.get(model, HostedConfig())

    def share_of(self, kind: TrafficConfig) -> float:
        """A class's share of all requests; shares are made to sum to 1."""
        return kind.share / sum(one.share for one in self.traffic)

    @classmethod
    def load(cls, path: Path) -> PlanConfig:
        """Read a file.

        Raises:
            ConfigError: naming the key that does not fit.
        """
        return validated(cls, read_mapping(path), str(path))


# ---- the tables that are shipped ---------------------------------------------------------------------


@lru_cache
def grid_table() -> dict[str, Any]:
    """data/grid_intensity.yaml: source, year and method beside the figures."""
    return _table("grid_intensity.yaml")


@lru_cache
def price_table() -> dict[str, Any]:
    """data/gpu_prices.yaml."""
    return _table("gpu_prices.yaml")


def _table(name: str) -> dict[str, Any]:
    return read_mapping(DATA / name)
