"""The capacity of a busy model: its most open requests, and the rate at which its queue drains. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from serving.config.admission import AdmissionConfig
from serving.replica_facts import ReplicaStats

# How much of the time with waiting requests the drain rate covers, and the calm after which it forgets all.
RATE_MEMORY_S, RATE_FORGET_S = 30.0, 60.0
MIN_DISPATCHES = 3
# The growth of the capacity from one report of the engines to the next, while requests wait.
GROWTH = 1.25


class DrainRate:
    """Dispatches per second while requests wait: an exponentially weighted moving average."""

    def __init__(self) -> None:
        self._dispatches = 0.0
        self._busy_s = 0.0
        self._seen = 0
        self._last_s = -math.inf
        self._busy_until_s = -math.inf

    def advance(self, now: float, *, busy: bool) -> None:
        """Account for passed time; `busy` says whether requests waited meanwhile."""
        if busy:
            keep = math.exp((self._last_s - now) / RATE_MEMORY_S)
            self._dispatches *= keep
            self._busy_s = self._busy_s * keep + RATE_MEMORY_S * (1 - keep)
            self._busy_until_s = now
        elif self._seen and now - self._busy_until_s > RATE_FORGET_S:
            self._dispatches, self._busy_s, self._seen = 0.0, 0.0, 0
        self._last_s = now

    def count(self) -> None:
        """Count the dispatch of a request that waited."""
        self._dispatches += 1
        self._seen += 1

    @property
    def per_s(self) -> float | None:
        """The rate; None until enough was measured."""
        if self._seen < MIN_DISPATCHES or self._busy_s <= 0:
            return None
        return self._dispatches / self._busy_s


def capacity(
    replica_stats: Iterable[ReplicaStats],
    config: AdmissionConfig,
    gateways: int = 1,
    current: int | None = None,
) -> int:
    """The most requests that one of `gateways` may have open at these replicas; 0 without replicas.

    A replica takes `max_open_per_replica`. While its engine says that requests wait inside, it takes what
    the engine runs and `max_waiting_per_replica` more, beside the reserve, but at least
    `min_open_per_replica`. That begins when half as many wait: where it holds, about that many do.

    While requests wait in the gateway, `current` is its capacity so far. It grows by a quarter each time
    then: an engine that has nothing waiting for a moment must not be buried under everything at once.

    Gateways share evenly: each knows its own open requests exactly, and the others' half a second late.
    """
    slots = 0.0
    for stats in replica_stats:
        limit = float(config.max_open_per_replica)
        if stats.waiting > config.max_waiting_per_replica / 2:
            busy = stats.running + config.max_waiting_per_replica
            bound = max(busy / (1 - config.reserve_share), config.min_open_per_replica)
            limit = min(limit, bound)
        slots += limit
    slots /= gateways
    if current:
        slots = min(slots, current * GROWTH + 1)
    return math.ceil(slots)
