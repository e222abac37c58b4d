"""The search for the highest rate: it doubles, bisects, confirms, and believes no rate that failed once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.analysis.columns import Columns
from loadtests.analysis.point import Point, enough_s, judge
from loadtests.analysis.point import backlog_grows as grows
from loadtests.analysis.rate_search import MOST_RUNS, Rate, Search, as_document, bracket, rates_of
from loadtests.analysis.stats import wilson_lower
from loadtests.run.record import Record
from loadtests.workload.scenario import SloConfig

POINT = Point(1.0, 1000, 1000, 1.0, 0.997, False, True, True, 0.1, 50, 10, 0.5)
TARGET = 0.95


def point(rate: float, share: float, **update: object) -> Point:
    """A run of a thousand requests."""
    good = round(1000 * share)
    return replace(POINT, rate_per_s=rate, good=good, attainment=share, **update)  # type: ignore[arg-type]


def sweep(limit: float, search: Search, bursts: float = 0.0) -> list[Point]:
    """All points of a search at a server that holds rates up to `limit`; `bursts` of the runs are unlucky."""
    points: list[Point] = []
    draw = random.Random(1)
    while (following := search.next_rate(points, TARGET)) is not None:
        rate, confirmation = following
        share = 0.99 if rate <= limit else 0.8
        unlucky = draw.random() < bursts
        # In a burst many of a run's requests miss, and it tells as much as a few of them.
        few: dict[str, object] = {"effective": 60.0} if unlucky else {}
        points.append(point(rate, share - 0.06 * unlucky, is_confirmation=confirmation, **few))
        assert len(points) <= search.max_points
    return points


@given(limit=st.floats(0.2, 900), precision=st.floats(0.02, 0.5))
@settings(max_examples=80, deadline=None)
def test_the_limit_is_bracketed_to_the_precision(limit: float, precision: float) -> None:
    search = Search(low=1.0, high=1000.0, precision=precision, max_points=60)
    passed, failed = bracket(sweep(limit, search), TARGET)
    assert passed is not None
    assert passed <= limit * (1 + 1e-9)
    if failed is not None:
        assert limit < failed
        assert failed / passed <= 1 + precision + 1e-9


def test_the_rate_that_is_reported_was_confirmed() -> None:
    document = as_document(sweep(9.3, Search(1.0, 100.0)), {}, SloConfig(ttft_ms=100))
    assert document["confirmed"]
    assert document["rate_per_s"] <= 9.3 < document["rate_fails_per_s"]
    again = [one for one in document["points"] if one["rate_per_s"] == document["rate_per_s"]]
    assert [one["is_confirmation"] for one in again] == [False, True]


def test_a_run_with_a_burst_does_not_decide_a_rate() -> None:
    search = Search(1.0, 100.0, max_points=60)
    points = sweep(10.0, search, bursts=0.3)
    passed, failed = bracket(points, TARGET)
    assert passed is not None
    assert failed is not None
    assert passed <= 10.0 < failed <= 1.1 * passed * (1 + 1e-9)
    assert len(points) > len(sweep(10.0, search)), "unlucky runs are repeated"


def test_a_rate_that_fails_in_its_confirmation_is_not_reported() -> None:
    points = [point(1, 0.99), point(2, 0.8), point(1.4, 0.97)]
    search = Search(1.0, 100.0, precision=0.45)
    assert search.next_rate(points, TARGET) == (1.4, True)
    points.append(point(1.4, 0.9, is_confirmation=True))
    assert bracket(points, TARGET) == (1, 1.4)
    assert search.next_rate(points, TARGET) == (1, True)


def test_what_cannot_be_told_is_run_again_and_then_counts_as_failing() -> None:
    points = [point(1.0, 0.95)]
    for _ in range(MOST_RUNS - 1):
        assert Search(1.0, 9.0).next_rate(points, TARGET) == (1.0, False)
        points.append(point(1.0, 0.95))
    assert Search(1.0, 9.0).next_rate(points, TARGET) == (0.5, False)
    assert bracket(points, TARGET) == (None, 1.0)


def test_a_late_generator_says_nothing_of_the_rate() -> None:
    late = point(4.0, 0.2, valid=False)
    assert Search(4.0, 9.0).next_rate([late], TARGET) == (4.0, False)
    assert Rate.of([late, point(4.0, 0.99)], 4.0, TARGET).state == "holds"
    assert Rate.of([late] * MOST_RUNS, 4.0, TARGET).state == "fails"


def test_a_rate_still_open_when_the_runs_end_is_not_reported() -> None:
    points = [point(1.0, 0.99), point(2.0, 0.95)]
    assert Search(1.0, 9.0, max_points=2).next_rate(points, TARGET) is None
    assert bracket(points, TARGET) == (1.0, 2.0)


def test_a_server_too_slow_for_the_first_rate_is_tried_lower_and_then_given_up() -> None:
    points = sweep(0.4, Search(1.0, 100.0))
    assert bracket(points, TARGET)[0] == pytest.approx(0.354, abs=0.1)
    document = as_document(sweep(0.0001, Search(1.0, 100.0)), {}, SloConfig())
    assert (document["rate_per_s"], document["confirmed"]) == (0.0, False)
    assert min(one["rate_per_s"] for one in document["points"]) >= 1 / 8


def test_nothing_above_the_highest_rate_is_tried() -> None:
    points = sweep(1e9, Search(1.0, 50.0))
    assert max(one.rate_per_s for one in points) == 50.0
    assert points[-1].is_confirmation


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 0.99])
def test_a_run_lasts_until_enough_requests_can_show_the_slo(target: float) -> None:
    requests = round(enough_s(2.0, SloConfig(ttft_ms=1, target=target)) * 2.0)
    misses = int(requests * (1 - target) / 4)
    assert wilson_lower(requests - misses, requests) >= target
    assert wilson_lower(requests // 3, requests // 3) < target, "a third of them could not"


GROWN = point(1, 0.99, backlog_grows=True)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([point(1, 0.99)], "holds"),
        ([point(1, 0.99)] * 2, "holds, confirmed"),
        ([point(1, 0.99, valid=False)], "invalid; again"),
        ([point(1, 0.99, valid=False)] * MOST_RUNS, "invalid"),
        ([GROWN], "backlog grows; again"),
        ([GROWN] * 2, "backlog grows"),
        ([GROWN, point(1, 0.99)], "backlog grows; again"),
        ([GROWN, point(1, 0.99), point(1, 0.99)], "holds, confirmed"),
        ([point(1, 0.9)], "misses the SLO"),
        ([point(1, 0.9, effective=30.0)], "too close to tell; again"),
        ([point(1, 0.95)] * MOST_RUNS, "too close to tell"),
    ],
)
def test_a_rate_that_does_not_hold_says_why(runs: list[Point], said: str) -> None:
    assert Rate.of(runs, 1, TARGET).verdict == said


def test_rates_are_listed_from_the_lowest_with_their_runs() -> None:
    found = rates_of([point(4, 0.9), point(2, 0.99), point(4, 0.8)], TARGET)
    assert [(one.rate_per_s, len(one.runs)) for one in found] == [(2, 1), (4, 2)]
    assert found[1].attainment == pytest.approx(0.85)


def is_good(one: Record, slo: SloConfig) -> bool:
    """What a sweep makes of one request."""
    columns = Columns.of([one])
    return bool(columns.good(dict.fromkeys(columns.groups, slo))[0])


def backlog_grows(records: list[Record], since_s: float, until_s: float) -> bool:
    columns = Columns.of(records)
    return grows(columns.intended_s, columns.end_s, since_s, until_s)


def record(at_s: float, took_s: float, **more: object) -> Record:
    values = {"status": 200, "first_s": at_s + 0.05, "output_tokens": 11, "gaps_ms": [10.0] * 10}
    return Record(
        0, "c", "chat", "m", "t", intended_s=at_s, sent_s=at_s, end_s=at_s + took_s, **values | more
    )


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        ({}, True),
        ({"ttft_ms": 51}, True),
        ({"ttft_ms": 49}, False),
        ({"tpot_ms": 10.1}, True),
        ({"tpot_ms": 9.9}, False),
        ({"itl_ms": 9}, False),
        ({"e2e_ms": 199}, False),
    ],
)
def test_a_request_is_good_when_it_keeps_every_promise(slo: dict[str, float], good: bool) -> None:
    assert is_good(record(0.0, 0.2), SloConfig(**slo)) is good
    assert not is_good(record(0.0, 0.2, error="timeout"), SloConfig())
    late = replace(record(0.0, 0.2), intended_s=-1.0)
    assert not is_good(late, SloConfig(ttft_ms=500)), "a late send counts from its intended time"


def test_failures_count_against_the_rate_and_warm_up_does_not_count() -> None:
    records = [record(t / 10, 0.2) for t in range(1000)]
    records[:50] = [replace(one, status=500, error="http") for one in records[:50]]
    point = judge(10, records, SloConfig(ttft_ms=100), (5.0, 100.0), valid=True)
    assert (point.requests, point.good, point.passed) == (950, 950, True)
    assert point.output_tokens_per_s == pytest.approx(110)
    assert point.in_flight_mean == pytest.approx(2.0, rel=0.02)
    point = judge(10, records, SloConfig(ttft_ms=100), (0.0, 100.0), valid=True)
    assert point.attainment == 0.95
    assert not point.passed, "95 % seen do not show that 95 % hold"
    assert not judge(10, records, SloConfig(), (5.0, 100.0), valid=False).passed


def test_a_queue_that_grows_is_seen_before_the_slo_is_missed() -> None:
    steady = [record(t / 10, 0.5) for t in range(600)]
    growing = [record(t / 10, 0.5 + t / 100) for t in range(600)]
    assert not backlog_grows(steady, 5.0, 60.0)
    assert backlog_grows(growing, 5.0, 60.0)
    assert not judge(10, growing, SloConfig(), (5.0, 60.0), valid=True).passed


def test_misses_in_a_burst_tell_less_than_as_many_alone() -> None:
    alone = [record(t / 10, 0.2, error="timeout" if t % 40 == 0 else "") for t in range(2000)]
    burst = [record(t / 10, 0.2, error="timeout" if t < 50 else "") for t in range(2000)]
    points = [judge(10, some, SloConfig(), (0.0, 200.0), valid=True) for some in (alone, burst)]
    assert [one.attainment for one in points] == [0.975, 0.975]
    assert points[0].effective == 2000
    assert points[1].effective < 100
    assert [one.passed for one in points] == [True, False]
    assert Rate.of(points[1:], 10, TARGET).verdict == "too close to tell; again"


def test_a_rate_with_a_broken_answer_holds_nothing_and_is_not_run_again() -> None:
    good = [record(t / 10, 0.2) for t in range(2000)]
    bad = [replace(one, error="truncated") if one.intended_s == 100 else one for one in good]
    points = [judge(10, some, SloConfig(), (0.0, 200.0), valid=True) for some in (good, bad)]
    assert [(one.broken, one.passed) for one in points] == [(0, True), (1, False)]
    rate = Rate.of(points, 10, TARGET)
    assert (rate.state, rate.verdict) == ("fails", "1 broken answers")
    # One that was lost with its connection is a failure among others, as load makes them.
    lost = [replace(one, error="reset") if one.intended_s == 100 else one for one in good]
    assert judge(10, lost, SloConfig(), (0.0, 200.0), valid=True).passed


def test_a_search_looks_below_rates_with_broken_answers() -> None:
    points = [replace(point(8, 1.0), broken=3)]
    assert Search(8.0, 100.0).next_rate(points, TARGET) == (4.0, False)
    points += [point(4, 1.0)]
    assert bracket(points, TARGET) == (4.0, 8.0)
