"""A replica's report on itself: its address, the card of its model, its load. Pure.

Ray carries all of it to the gateways as dictionaries of plain values; they are written and read here. The
autoscaler alone reads the load elsewhere, by the names of its figures (`autoscaling/policy_ray.py`).
While a change is rolled out, gateways and replicas of two builds talk to each other: unknown facts are
ignored, and missing ones have defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from serving.records import record


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts of a model. None, or an empty tuple: unknown, or none.

    Attributes:
        task: chat, embed, rerank or guard; another word may come from a newer build.
        aliases: other names that clients may use.
        adapters: names of LoRA adapters that the same engine serves.
        entry: the catalogue's entry.
        min_replicas: 0 for a model that may sleep.
        prefill_min_tokens: from how many prompt tokens on prefill replicas compute it.
        max_model_len: the context in tokens, which an engine says when it has started.
        created: Unix time.
    """

    task: str | None = None
    capabilities: tuple[str, ...] | None = None
    vendor: str = "unknown"
    vendor_jurisdiction: str | None = None
    licence: str | None = None
    notices: tuple[str, ...] = ()
    repository: str | None = None
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    entry: str | None = None
    min_replicas: int | None = None
    prefill_min_tokens: int | None = None
    max_model_len: int | None = None
    created: int = 0

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Read what `encode` wrote, of this build or another one."""
        found = {name: read(value[name]) for name, read in _CARD.items() if name in value}
        return cls(**{name: fact for name, fact in found.items() if fact is not None})

    def encode(self) -> dict[str, Any]:
        """The card as JSON; unset facts are included, except those that only an engine can know."""
        facts = {name: getattr(self, name) for name in _CARD}
        if self.max_model_len is None:
            del facts["max_model_len"]
        return {
            name: list(fact) if isinstance(fact, tuple) else fact for name, fact in facts.items()
        }

    def says(self, value: Mapping[str, Any]) -> bool:
        """Whether it agrees with each fact that an encoded card states, which need not be all."""
        other = self.parse(value)
        return all(getattr(self, name) == getattr(other, name) for name in value if name in _CARD)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple):
        return None
    return tuple(each for each in value if isinstance(each, str))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "str | None": _text,
    "tuple[str, ...]": _texts,
    "tuple[str, ...] | None": _texts,
    "int": _whole,
    "int | None": _whole,
}
# How each fact of a card is read, by its type as it is written above.
_CARD: Mapping[str, Callable[[Any], Any]] = {
    each.name: _READERS[str(each.type)] for each in fields(ModelCard)
}


@record
class ReplicaStats:
    """The load of one replica as it last reported it; 0 for what it did not report.

    Attributes:
        running, waiting: requests in the engine's batch, and those that wait to enter it.
        kv_cache_use: the share of the KV cache that is taken, 0 to 1.
        prefix_queried_tokens, prefix_hit_tokens: of prompts, looked up in the prefix cache and found there.
        prompt_tokens, generated_tokens, preemptions: since the engine's start.
        last_step_s: when the scheduler last took a step, on a clock of the replica's own.
        tokens_per_s: tokens generated per second, over some seconds.
        open_requests, arrived_requests: inside the replica now, and those that ever came to it.
        gateway_queue: requests that gateways hold back for this model.
        start_s: how long the start took.
        kept_bills, unclaimed_bills, dropped_bills: see `serving.engine.metering`.
        reported: the report as it came, with what only another build knows.
    """

    running: float = 0.0
    waiting: float = 0.0
    kv_cache_use: float = 0.0
    prefix_queried_tokens: float = 0.0
    prefix_hit_tokens: float = 0.0
    prompt_tokens: float = 0.0
    generated_tokens: float = 0.0
    preemptions: float = 0.0
    last_step_s: float | None = None
    tokens_per_s: float = 0.0
    open_requests: float = 0.0
    arrived_requests: float = 0.0
    gateway_queue: float = 0.0
    start_s: float = 0.0
    kept_bills: float = 0.0
    unclaimed_bills: float = 0.0
    dropped_bills: float = 0.0
    unattributed_prompt_tokens: float = 0.0
    unattributed_output_tokens: float = 0.0
    reported: Mapping[str, float] = field(default_factory=dict, init=False, hash=False)

    @classmethod
    def parse(cls, report: Mapping[str, Any]) -> Self:
        """Read what `encode` wrote, of this build or another one."""
        # A gateway of a large site does so thousands of times per second.
        reported = {name: value for name, value in report.items() if type(value) in _NUMBERS}
        stats = cls(**{name: reported[name] for name in _STATS if name in reported})
        object.__setattr__(stats, "reported", reported)
        return stats

    def encode(self) -> dict[str, float]:
        """Numbers by name, as Ray Serve's hooks want them."""
        found = {name: getattr(self, name) for name in _STATS}
        return {name: value for name, value in found.items() if value is not None}


_STATS = tuple(each.name for each in fields(ReplicaStats) if each.init)
_NUMBERS = (float, int)


@record
class ReplicaMetadata:
    """A replica's report after its start: its address, and its model.

    `token` opens its door; `card` is an encoded `ModelCard`. Replicas of the same `build` read each other's
    KV caches; "" where prefill and decode are not apart.
    """

    host: str
    port: int
    token: str = field(repr=False)
    card: Mapping[str, Any] = field(default_factory=dict, hash=False)
    build: str = ""

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self | None:
        """Read what `encode` wrote, of this build or another one; None if it cannot be reached so."""
        host, port, token = value.get("host"), value.get("port"), value.get("token")
        if not isinstance(host, str) or not isinstance(port, int) or not isinstance(token, str):
            return None
        return cls(host, port, token, value.get("card") or {}, _text(value.get("build")) or "")

    def encode(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: getattr(self, name) for name in _METADATA}

    @property
    def base_url(self) -> str:
        """The URL of its app."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


_METADATA = tuple(each.name for each in fields(ReplicaMetadata))
