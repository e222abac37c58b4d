"""Finds the highest rate at which the SLO holds: doubling, bisection, confirmation. Pure.

A rate passes when the one-sided 95 % Wilson lower bound of SLO attainment is at least the target, the backlog
does not grow and the generator was valid (docs/load-testing.md). Rates are requests per second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtests.record import Record
from loadtests.scenario import SloConfig
from loadtests.statistics import percentile, wilson_lower

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
    records: Sequence[Record],
    slo: SloConfig,
    counted: tuple[float, float],
    *,
    valid: bool,
    is_confirmation: bool = False,
    folder: str = "",
) -> Point:
    """One run as a point; `counted` is the time, from and to, whose requests count, by intended send."""
    since_s, until_s = counted
    mine = [one for one in records if since_s <= one.intended_s < until_s]
    good = sum(is_good(one, slo) for one in mine)
    answered = [one for one in mine if one.is_ok]
    low = wilson_lower(good, len(mine)) if mine else 0.0
    grows = backlog_grows(records, since_s, until_s)
    ttfts = [one.ttft_intended_s * 1000 for one in answered if one.ttft_intended_s is not None]
    span_s = until_s - since_s
    return Point(
        rate_per_s=rate_per_s,
        requests=len(mine),
        good=good,
        attainment=good / len(mine) if mine else 0.0,
        wilson_low=low,
        backlog_grows=grows,
        valid=valid,
        passed=bool(mine) and valid and not grows and low >= slo.target,
        e2e_mean_s=_mean([one.e2e_intended_s for one in answered]),
        ttft_p95_ms=percentile(ttfts, 95) if ttfts else 0.0,
        output_tokens_per_s=sum(max(0, one.output_tokens) for one in answered) / span_s,
        in_flight_mean=in_flight(records, since_s, until_s),
        is_confirmation=is_confirmation,
        folder=folder,
    )


def is_good(record: Record, slo: SloConfig) -> bool:
    """Whether a request kept every promise, counted from its intended send; a failure never does."""
    if not record.is_ok:
        return False
    ttft_s, tpot_s = record.ttft_intended_s, record.tpot_s
    kept = slo.e2e_ms is None or record.e2e_intended_s * 1000 <= slo.e2e_ms
    if slo.ttft_ms is not None:
        kept = kept and ttft_s is not None and ttft_s * 1000 <= slo.ttft_ms
    if slo.tpot_ms is not None and tpot_s is not None:
        kept = kept and tpot_s * 1000 <= slo.tpot_ms
    if slo.itl_ms is not None and record.gaps_ms:
        kept = kept and percentile(record.gaps_ms, 99) <= slo.itl_ms
    return kept


def in_flight(records: Sequence[Record], since_s: float, until_s: float) -> float:
    """Mean number of requests between intended send and end, over a time."""
    inside = sum(
        max(0.0, min(one.end_s, until_s) - max(one.intended_s, since_s)) for one in records
    )
    return inside / (until_s - since_s)


def backlog_grows(records: Sequence[Record], since_s: float, until_s: float) -> bool:
    """Whether clearly more was in flight at the end of the counted time than in its first half."""
    quarter_s = (until_s - since_s) / 4
    early = in_flight(records, since_s + quarter_s, since_s + 2 * quarter_s)
    late = in_flight(records, until_s - quarter_s, until_s)
    return late > BACKLOG_GROWTH * early + BACKLOG_SLACK


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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
