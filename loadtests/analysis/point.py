"""One run of a sweep: how many requests kept the SLO, and how sure that is. Pure; rates are per second."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from loadtests.analysis.columns import Columns
from loadtests.analysis.stats import Floats, effective_size, occupancy, spread, wilson_lower
from loadtests.answers.ends import broken_in
from loadtests.run.record import Record
from loadtests.workload.scenario import SloConfig

# How much more may be in flight in the last quarter of the counted time than in the second one.
BACKLOG_GROWTH, BACKLOG_SLACK = 1.5, 4.0


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep; `attainment` and `wilson_low` are shares of all counted requests.

    Misses come in bursts, when a queue builds up: `effective` is how many requests would tell as much if
    each missed by itself, and the bound is of so many. `passed`: this run alone shows that the SLO holds;
    about a rate, `rate_search.Rate.state` decides.
    `broken`: answers with status 200 that were incomplete or malformed; a run with one of them shows nothing.
    """

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
    effective: float = 0.0
    broken: int = 0


def enough_s(rate_per_s: float, slo: SloConfig) -> float:
    """Seconds of this rate in which requests can show that the SLO holds, a few misses allowed."""
    requests = 1
    while wilson_lower(math.floor(requests * (1 - (1 - slo.target) / 4)), requests) < slo.target:
        requests += max(1, requests // 20)
    return requests / rate_per_s


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
    kept = columns.good(dict.fromkeys(columns.groups, slo))[is_mine]
    in_order = np.argsort(columns.intended_s[is_mine], kind="stable")
    requests, good = len(kept), int(kept.sum())
    effective = effective_size(kept[in_order].astype(np.float64))
    answered = columns.where(is_mine & columns.ok)
    latencies = answered.latencies()
    low = wilson_lower(good * effective / requests, effective) if requests else 0.0
    grows = backlog_grows(columns.intended_s, columns.end_s, since_s, until_s)
    span_s = until_s - since_s
    broken = broken_in(Counter(columns.words[place] for place in columns.error[is_mine]))
    return Point(
        rate_per_s=rate_per_s,
        requests=requests,
        good=good,
        attainment=good / requests if requests else 0.0,
        wilson_low=low,
        backlog_grows=grows,
        valid=valid,
        passed=requests > 0 and valid and not grows and not broken and low >= slo.target,
        e2e_mean_s=_figure(latencies["e2e_intended_ms"], "mean") / 1000,
        ttft_p95_ms=_figure(latencies["ttft_intended_ms"], "p95"),
        output_tokens_per_s=int(np.maximum(answered.output_tokens, 0).sum()) / span_s,
        in_flight_mean=_in_flight(columns.intended_s, columns.end_s, since_s, until_s),
        is_confirmation=is_confirmation,
        folder=folder,
        effective=effective,
        broken=broken,
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
    """One of `spread`'s figures; 0 without values."""
    return (spread(values) or {}).get(name) or 0.0
