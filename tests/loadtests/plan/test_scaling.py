"""How much several replicas carry."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.plan.model import LEVELS
from loadtests.plan.scaling import Limit, Scaling, fewest


def one(replicas: int, each: float, in_flight: float = 25.0, most: float = 1.01) -> Limit:
    """So many replicas, each carrying `each`."""
    return Limit(
        replicas, replicas * each, replicas * each, most * replicas * each, replicas * in_flight
    )


def test_what_was_measured_stands() -> None:
    scaling = Scaling.of([one(4, 12.0), one(1, 10.0)])
    for replicas, rate in ((1, 10.0), (4, 48.0)):
        assert scaling.rate_per_s(replicas, "low") == rate
        assert scaling.rate_per_s(replicas, "typical") == rate
        assert scaling.rate_per_s(replicas, "high") == pytest.approx(1.01 * rate)


@given(st.integers(1, 200), st.floats(0.5, 500))
def test_from_one_replica_several_pool_their_queues(replicas: int, in_flight: float) -> None:
    scaling = Scaling.of([one(1, 10.0, in_flight)])
    low, typical, high = (scaling.rate_per_s(replicas, level) for level in LEVELS)
    assert low == pytest.approx(10 * replicas)
    assert low <= typical * (1 + 1e-9)
    assert typical <= high * (1 + 1e-9)
    # Square-root staffing: with few requests in flight there is more to gain.
    if replicas > 1:
        crowded = Scaling.of([one(1, 10.0, in_flight * 2)])
        assert crowded.rate_per_s(replicas, "typical") < typical


def test_between_and_beyond_two_numbers_the_curve_goes_on() -> None:
    scaling = Scaling.of([one(1, 10.0), one(4, 13.0)])
    each = [scaling.rate_per_s(count, "typical") / count for count in range(1, 20)]
    assert each == sorted(each)
    assert 10 < each[1] < 13 < each[7] < 15


def test_a_larger_number_bounds_a_smaller_one() -> None:
    # Four that carry 10.2 each: two of them cannot carry more each.
    scaling = Scaling.of([one(1, 10.0), one(4, 10.2)])
    assert scaling.rate_per_s(2, "high") <= 2 * 10.2 * 1.01 + 1e-9


def test_below_the_smallest_number_each_carries_less() -> None:
    scaling = Scaling.of([one(4, 10.0)])
    low, typical, high = (scaling.rate_per_s(1, level) for level in LEVELS)
    assert 0 < low < typical < high <= 10.1


def test_where_nothing_failed_there_is_no_upper_end() -> None:
    assert Scaling.of([one(1, 10.0, most=math.inf)]).rate_per_s(3, "high") == math.inf


@given(st.integers(1, 5000))
def test_fewest_finds_the_first(first: int) -> None:
    assert fewest(lambda count: count >= first, 5000) == first
    assert fewest(lambda count: False, 100) is None
