"""The capacity of several replicas, from sweeps of some numbers of them. Pure.

Behind a router replicas pool their queues: what each of them carries never falls with their number, and grows
towards a ceiling. Measured numbers stand; between and beyond them:
- for sure: each carries at least what it did in the largest smaller number that was measured;
- probably: what each carries is a - b / number ** 0.75, through two measured numbers. With one only, half
  of what square-root staffing (Halfin and Whitt, "Heavy-traffic limits for queues", 1981) promises for the
  requests in flight, which follow from Little's law;
- at most: the ends of what was measured, and half more than square-root staffing promises.
Neither a - b / number ** 0.75 nor the half are theory: they fit the replicas of simulation/queueing.py best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.plan.model import Level

EXPONENT = 0.75
# Shares of square-root staffing's gain: assumed, and at most.
LIKELY_GAIN, MOST_GAIN = 0.5, 1.5
# The share of requests that must be good, 0.95, as a normal quantile.
QUANTILE = 1.645
MOST_REPLICAS = 100_000


@dataclass(frozen=True, slots=True)
class Limit:
    """What so many replicas carry together: for sure, probably, at most; and the requests then in flight."""

    replicas: int
    sure_per_s: float
    likely_per_s: float
    most_per_s: float
    in_flight: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """The limits that were measured, by rising number of replicas; at least one."""

    limits: tuple[Limit, ...]

    @classmethod
    def of(cls, limits: Sequence[Limit]) -> Scaling:
        """In any order."""
        return cls(tuple(sorted(limits, key=lambda one: one.replicas)))

    def rate_per_s(self, replicas: int, level: Level) -> float:
        """What so many carry: `low` for sure, `typical` probably, `high` at most."""
        sure = self._sure(replicas)
        if level == "low":
            return sure
        most = max(sure, self._most(replicas))
        return most if level == "high" else min(max(self._likely(replicas), sure), most)

    def _sure(self, replicas: int) -> float:
        first = self.limits[0]
        if replicas < first.replicas:
            gain = _pooling(first, replicas, MOST_GAIN)
            return first.sure_per_s * replicas / first.replicas * gain
        return max(
            one.sure_per_s * replicas / one.replicas
            for one in self.limits
            if one.replicas <= replicas
        )

    def _most(self, replicas: int) -> float:
        bounds = []
        for one in self.limits:
            each = one.most_per_s * replicas / one.replicas
            # More of them never carry less each: a larger number that was measured bounds this one.
            bounds.append(each if one.replicas >= replicas else each * self._gain(one, replicas))
        return min(bounds)

    def _gain(self, one: Limit, replicas: int) -> float:
        return _pooling(one, replicas, MOST_GAIN)

    def _likely(self, replicas: int) -> float:
        anchor = min(self.limits, key=lambda one: abs(math.log(one.replicas / replicas)))
        each = anchor.likely_per_s / anchor.replicas
        if len(self.limits) == 1:
            return replicas * each * _pooling(anchor, replicas, LIKELY_GAIN)
        first = self.limits[0] if anchor is not self.limits[0] else self.limits[1]
        rise: float = (each - first.likely_per_s / first.replicas) / (
            first.replicas**-EXPONENT - anchor.replicas**-EXPONENT
        )
        gain: float = anchor.replicas**-EXPONENT - replicas**-EXPONENT
        return replicas * (each + max(0.0, rise) * gain)


def fewest(enough: Callable[[int], bool], most: int = MOST_REPLICAS) -> int | None:
    """The smallest number for which this is so, and stays so above it; None: not even for `most`."""
    high = 1
    while not enough(high):
        if high >= most:
            return None
        high = min(high * 2, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _pooling(measured: Limit, replicas: int, share: float) -> float:
    """What each of so many carries, over what each did when measured, by a share of square-root staffing.

    `in_flight` requests are in the system on average and `places` suffice for them with the safety of the
    quantile: of `replicas / measured.replicas` times the places, a larger part can be filled.
    """
    load = max(measured.in_flight, 1e-9)
    places = load + QUANTILE * math.sqrt(load)
    times = replicas / measured.replicas
    root = (-QUANTILE + math.sqrt(QUANTILE**2 + 4 * times * places)) / 2
    return max(1e-3, 1 + share * (root * root / (times * load) - 1))
