"""The search for the highest rate: it doubles, bisects, confirms, and believes no rate that failed once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.columns import Columns
from loadtests.record import Record
from loadtests.scenario import SloConfig
from loadtests.statistics import wilson_lower
from loadtests.sweep import Point, Search, as_document, bracket, enough_s, judge, verdict
from loadtests.sweep import backlog_grows as grows

POINT = Point(1.0, 100, 100, 1.0, 0.97, False, True, True, 0.1, 50, 10, 0.5)


def sweep(limit: float, search: Search, unsure: float = 0.0) -> list[Point]:
    """All points of a search at a server that holds rates below `limit`, and now and then one above."""
    points: list[Point] = []
    draw = random.Random(1)
    while (following := search.next_rate(points)) is not None:
        rate, confirmation = following
        passed = rate <= limit or (not confirmation and draw.random() < unsure)
        points.append(replace(POINT, rate_per_s=rate, passed=passed, is_confirmation=confirmation))
        assert len(points) <= search.max_points
    return points


@given(limit=st.floats(0.2, 900), precision=st.floats(0.02, 0.5))
@settings(max_examples=80, deadline=None)
def test_the_limit_is_bracketed_to_the_precision(limit: float, precision: float) -> None:
    search = Search(low=1.0, high=1000.0, precision=precision, max_points=60)
    passed, failed = bracket(sweep(limit, search))
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


def test_a_rate_that_fails_its_confirmation_is_not_reported() -> None:
    search = Search(1.0, 100.0, max_points=40)
    points = sweep(10.0, search, unsure=0.7)
    passed, failed = bracket(points)
    assert passed is not None
    assert failed is not None
    assert passed < failed
    assert passed <= 10.0
    assert any(one.is_confirmation and not one.passed for one in points)


def test_a_server_too_slow_for_the_first_rate_is_tried_lower_and_then_given_up() -> None:
    points = sweep(0.4, Search(1.0, 100.0))
    assert bracket(points)[0] == pytest.approx(0.354, abs=0.1)
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


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({}, "holds"),
        ({"is_confirmation": True}, "holds (confirmation)"),
        ({"passed": False, "valid": False}, "invalid"),
        ({"passed": False, "backlog_grows": True}, "backlog grows"),
        ({"passed": False, "attainment": 0.9}, "misses the SLO"),
        ({"passed": False, "wilson_low": 0.9}, "too few requests to tell"),
    ],
)
def test_a_rate_that_does_not_hold_says_why(update: dict[str, object], said: str) -> None:
    assert verdict(replace(POINT, **update), SloConfig(ttft_ms=1)) == said  # type: ignore[arg-type]


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
    assert not is_good(record(0.0, 0.2, error="stream"), SloConfig())
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
