"""Finds the highest rate at which the SLO holds: doubling, bisection, confirmation. Pure.

All runs of a rate count together. It holds when the one-sided 95 % Wilson lower bound of SLO attainment is at
least the target, and fails when the upper bound is below it; what is between is run again, with other random
numbers (docs/load-testing.md). Rates are requests per second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from loadtests.analysis.point import Point
from loadtests.analysis.stats import wilson_lower, wilson_upper
from loadtests.workload.scenario import SloConfig

# After so many runs a rate that could not be shown to hold counts as one that fails.
MOST_RUNS = 4

State = Literal["holds", "fails", "open"]


@dataclass(frozen=True, slots=True)
class Rate:
    """All runs of one rate, taken together; `low` and `high` bound the share of good requests."""

    rate_per_s: float
    target: float
    runs: tuple[Point, ...]

    @classmethod
    def of(cls, points: Iterable[Point], rate_per_s: float, target: float) -> Rate:
        """Those of the points that were run at this rate."""
        return cls(rate_per_s, target, tuple(one for one in points if one.rate_per_s == rate_per_s))

    @property
    def counted(self) -> tuple[Point, ...]:
        """The runs without those in which the generator was late, which say nothing about the rate."""
        return tuple(one for one in self.runs if one.valid and one.requests)

    @property
    def attainment(self) -> float:
        """The share of good requests."""
        requests = sum(one.requests for one in self.counted)
        return sum(one.good for one in self.counted) / requests if requests else 0.0

    @property
    def low(self) -> float:
        """One-sided 95 % bound."""
        return wilson_lower(self.attainment * self._effective, self._effective)

    @property
    def high(self) -> float:
        """One-sided 95 % bound."""
        return wilson_upper(self.attainment * self._effective, self._effective)

    @property
    def _effective(self) -> float:
        return sum(one.effective or one.requests for one in self.counted)

    @property
    def growing(self) -> int:
        """The number of runs in which the backlog grew. One among several may be chance."""
        return sum(one.backlog_grows for one in self.counted)

    @property
    def broken(self) -> int:
        """Broken answers. Not one is chance: a server must not give them at any rate."""
        return sum(one.broken for one in self.runs)

    @property
    def state(self) -> State:
        """The state of the rate: `open` needs another run."""
        if self.broken:
            return "fails"
        if self.counted and (self.high < self.target or self.growing > 1):
            return "fails"
        if self.low >= self.target and 2 * self.growing < len(self.counted):
            return "holds"
        return "fails" if len(self.runs) >= MOST_RUNS else "open"

    @property
    def is_confirmed(self) -> bool:
        """Whether it holds, and not by one run alone."""
        return self.state == "holds" and len(self.counted) > 1

    @property
    def verdict(self) -> str:
        """Whether it holds, or why it does not."""
        again = "; again" if self.state == "open" else ""
        if self.state == "holds":
            return "holds, confirmed" if self.is_confirmed else "holds"
        if self.broken:
            return f"{self.broken} broken answers"
        if not self.counted:
            return "invalid" + again
        if self.high < self.target:
            return "misses the SLO"
        return ("backlog grows" if self.growing else "too close to tell") + again


def rates_of(points: Sequence[Point], target: float) -> list[Rate]:
    """Every rate that was run, the lowest first."""
    return [Rate.of(points, each, target) for each in sorted({one.rate_per_s for one in points})]


@dataclass(frozen=True, slots=True)
class Search:
    """From `low` on, to within `precision` (0.1: ten per cent), in `max_points` runs at most."""

    low: float
    high: float
    precision: float = 0.1
    max_points: int = 20

    def next_rate(self, points: Sequence[Point], target: float) -> tuple[float, bool] | None:
        """The next rate to run and whether it is a confirmation; None when nothing is left to try."""
        if len(points) >= self.max_points:
            return None
        if points:
            last = Rate.of(points, points[-1].rate_per_s, target)
            if last.state == "open":
                return last.rate_per_s, False
        passed, failed = bracket(points, target)
        if passed is None:
            if failed is None:
                return self.low, False
            # Below a rate that fails there may be one that holds: down to an eighth of the first.
            lower = failed / 2
            return (lower, False) if lower >= self.low / 8 else None
        if failed is None:
            higher = min(passed * 2, self.high)
            if higher > passed * (1 + self.precision / 10):
                return higher, False
        elif failed / passed > 1 + self.precision:
            return math.sqrt(passed * failed), False
        return None if Rate.of(points, passed, target).is_confirmed else (passed, True)


def bracket(points: Sequence[Point], target: float) -> tuple[float | None, float | None]:
    """The highest rate that holds below all that fail, and the lowest that fails.

    A rate that was still open when the runs ended counts as one that fails.
    """
    passed, failed = None, None
    for one in rates_of(points, target):
        if one.state != "holds":
            failed = one.rate_per_s
            break
        passed = one.rate_per_s
    return passed, failed


def as_document(
    points: Sequence[Point], about: Mapping[str, Any], slo: SloConfig
) -> dict[str, Any]:
    """sweep.json: what `comptoir plan` reads."""
    passed, failed = bracket(points, slo.target)
    confirmed = passed is not None and Rate.of(points, passed, slo.target).is_confirmed
    return {
        "comptoir_sweep": 1,
        **about,
        "slo": slo.model_dump(exclude_none=True),
        "points": [asdict(one) for one in points],
        "rate_per_s": passed if passed is not None and confirmed else 0.0,
        "rate_fails_per_s": failed,
        "confirmed": confirmed,
    }
