"""Finds the highest rate at which the SLO holds: doubling, bisection, confirmation. Pure.

A rate passes when the one-sided 95 % Wilson lower bound of SLO attainment is at least the target, the backlog
does not grow and the generator was valid (docs/load-testing.md). Rates are requests per second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadtests.columns import Columns
from loadtests.record import Record
from loadtests.scenario import SloConfig
from loadtests.statistics import Floats, occupancy, spread, wilson_lower

# How much more may be in flight in the last quarter of the counted time than in the second one.
BACKLOG_GROWTH, BACKLOG_SLACK = 1.5, 4.0


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep; `attainment` and `wilson_low` are shares of all counted requests."""

    rate_per_s: float
    requests: int
    good: int
    attainment: float
    wilson_low: float
    backlog_grows: bool
    valid: bool
    passed: bool
    e2e_mean_s: float
    ttft_p95_ms: float
    output_tokens_per_s: float
    in_flight_mean: float
    is_confirmation: bool = False
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: from `low` on, to within `precision` (0.1: ten per cent), at most `max_points`."""

    low: float
    high: float
    precision: float = 0.1
    max_points: int = 14

    def next_rate(self, points: Sequence[Point]) -> tuple[float, bool] | None:
        """The next rate to try and whether it is a confirmation; None when nothing is left to try."""
        if len(points) >= self.max_points:
            return None
        passed, failed = bracket(points)
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
        return None if is_confirmed(points, passed) else (passed, True)


def verdict(point: Point, slo: SloConfig) -> str:
    """Whether a rate holds, or why it does not."""
    if point.passed:
        found = "holds"
    elif not point.valid:
        found = "invalid"
    elif point.backlog_grows:
        found = "backlog grows"
    elif point.attainment >= slo.target:
        found = "too few requests to tell"
    else:
        found = "misses the SLO"
    return found + (" (confirmation)" if point.is_confirmation else "")


def enough_s(rate_per_s: float, slo: SloConfig) -> float:
    """Seconds of this rate in which requests can show that the SLO holds, a few misses allowed."""
    requests = 1
    while wilson_lower(math.floor(requests * (1 - (1 - slo.target) / 4)), requests) < slo.target:
        requests += max(1, requests // 20)
    return requests / rate_per_s


def bracket(points: Sequence[Point]) -> tuple[float | None, float | None]:
    """The highest rate that passed below all that failed, and the lowest that failed.

    A rate that failed once has failed, also if it passed another time.
    """
    failed = min((one.rate_per_s for one in points if not one.passed), default=None)
    passed = max(
        (
            one.rate_per_s
            for one in points
            if one.passed and (failed is None or one.rate_per_s < failed)
        ),
        default=None,
    )
    return passed, failed


def is_confirmed(points: Sequence[Point], rate_per_s: float) -> bool:
    """Whether this rate has passed twice, the second time with other random numbers."""
    return any(
        one.is_confirmation and one.passed and one.rate_per_s == rate_per_s for one in points
    )


def judge(
    rate_per_s: float,
    records: Iterable[Record],
    slo: SloConfig,
    counted: tuple[float, float],
    *,
    valid: bool,
    is_confirmation: bool = False,
    folder: str = "",
) -> Point:
    """One run as a point; `counted` is the time, from and to, whose requests count, by intended send."""
    since_s, until_s = counted
    columns = Columns.of(records)
    is_mine = (columns.intended_s >= since_s) & (columns.intended_s < until_s)
    kept = columns.good(dict.fromkeys(columns.groups, slo))
    requests, good = int(is_mine.sum()), int((kept & is_mine).sum())
    answered = columns.where(is_mine & columns.ok)
    latencies = answered.latencies()
    low = wilson_lower(good, requests)
    grows = backlog_grows(columns.intended_s, columns.end_s, since_s, until_s)
    span_s = until_s - since_s
    return Point(
        rate_per_s=rate_per_s,
        requests=requests,
        good=good,
        attainment=good / requests if requests else 0.0,
        wilson_low=low,
        backlog_grows=grows,
        valid=valid,
        passed=requests > 0 and valid and not grows and low >= slo.target,
        e2e_mean_s=_figure(latencies["e2e_intended_ms"], "mean") / 1000,
        ttft_p95_ms=_figure(latencies["ttft_intended_ms"], "p95"),
        output_tokens_per_s=int(np.maximum(answered.output_tokens, 0).sum()) / span_s,
        in_flight_mean=_in_flight(columns.intended_s, columns.end_s, since_s, until_s),
        is_confirmation=is_confirmation,
        folder=folder,
    )


def backlog_grows(starts_s: Floats, ends_s: Floats, since_s: float, until_s: float) -> bool:
    """Whether clearly more was in flight at the end of the counted time than in its first half."""
    quarter_s = (until_s - since_s) / 4
    early = _in_flight(starts_s, ends_s, since_s + quarter_s, since_s + 2 * quarter_s)
    late = _in_flight(starts_s, ends_s, until_s - quarter_s, until_s)
    return late > BACKLOG_GROWTH * early + BACKLOG_SLACK


def _in_flight(starts_s: Floats, ends_s: Floats, since_s: float, until_s: float) -> float:
    """Mean number of requests between intended send and end, over a time."""
    return float(occupancy(starts_s, ends_s, np.array([since_s, until_s]))[0])


def _figure(values: Floats, name: str) -> float:
    """One of `spread`'s figures; 0 of nothing."""
    return (spread(values) or {}).get(name) or 0.0


def as_document(
    points: Sequence[Point], about: Mapping[str, Any], slo: SloConfig
) -> dict[str, Any]:
    """sweep.json: what `comptoir plan` reads."""
    passed, failed = bracket(points)
    confirmed = passed is not None and is_confirmed(points, passed)
    return {
        "comptoir_sweep": 1,
        **about,
        "slo": slo.model_dump(exclude_none=True),
        "points": [asdict(one) for one in points],
        "rate_per_s": passed if passed is not None and confirmed else 0.0,
        "rate_fails_per_s": failed,
        "confirmed": confirmed,
    }
