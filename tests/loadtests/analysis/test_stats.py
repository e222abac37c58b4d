from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.analysis.stats import (
    LittlesLaw,
    effective_size,
    interval,
    occupancy,
    percentile,
    resample_blocks,
    resampled_percentiles,
    resampled_sums,
    spread,
    wilson_lower,
    wilson_upper,
)

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)
shares = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(values, st.floats(0, 100))
def test_percentiles_of_lists_and_of_arrays_are_numpys(found: list[float], percent: float) -> None:
    expected = float(np.percentile(found, percent))
    assert percentile(found, percent) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert percentile(np.array(found), percent) == expected


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([10, 20], 99) == pytest.approx(19.9)
    assert percentile(iter([7.0]), 1) == 7


def test_of_nothing_there_is_no_percentile() -> None:
    assert math.isnan(percentile([], 50))
    assert math.isnan(percentile(np.array([]), 50))
    assert spread(np.array([math.nan])) is None


def test_a_spread_leaves_out_what_is_missing() -> None:
    found = spread(np.array([1.0, math.nan, 3.0]))
    assert found is not None
    assert (found["p50"], found["mean"], found["max"]) == (2, 2, 3)


# ---- shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "total", "bound"), [(95, 100, 0.90084), (100, 100, 0.97366), (50, 100, 0.41885)]
)
def test_wilsons_lower_bound_has_the_value_of_its_formula(
    good: int, total: int, bound: float
) -> None:
    # (p + z²/2n - z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.644854.
    assert wilson_lower(good, total) == pytest.approx(bound, abs=1e-5)


@given(shares)
def test_wilsons_bounds_enclose_the_share(pair: tuple[int, int]) -> None:
    good, total = pair
    assert 0 <= wilson_lower(good, total) <= good / total <= wilson_upper(good, total) <= 1
    # What is good from one side is bad from the other.
    assert wilson_lower(good, total) == pytest.approx(1 - wilson_upper(total - good, total))


@given(shares)
def test_more_requests_with_the_same_share_raise_the_lower_bound(pair: tuple[int, int]) -> None:
    good, total = pair
    assert wilson_lower(10 * good, 10 * total) >= wilson_lower(good, total)


def test_nothing_measured_proves_nothing() -> None:
    assert (wilson_lower(0, 0), wilson_upper(0, 0)) == (0, 1)


@given(st.lists(st.booleans(), max_size=300))
def test_the_effective_size_is_never_more_than_there_are(kept: list[bool]) -> None:
    found = effective_size(np.array(kept, dtype=np.float64))
    assert min(1, len(kept)) <= found <= len(kept)


def test_the_effective_size_counts_bursts_and_not_what_is_in_them() -> None:
    random = np.random.default_rng(1)
    alone = [effective_size((random.random(2000) < 0.9).astype(np.float64)) for _ in range(200)]
    assert 1700 < np.median(alone) <= 2000
    # Fifty neighbours share their fate: forty bursts.
    bursts = [
        effective_size(np.repeat(random.random(40) < 0.9, 50).astype(np.float64))
        for _ in range(200)
    ]
    assert np.median(bursts) == pytest.approx(40, rel=0.25)


# ---- queues ------------------------------------------------------------------------------------------


def test_occupancy_is_exact() -> None:
    starts, ends = np.array([0.0, 1.0, 2.5]), np.array([2.0, 3.0, 2.75])
    found = occupancy(starts, ends, np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert found.tolist() == pytest.approx([1, 2, 1.25, 0])


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 20)), min_size=1, max_size=40))
def test_over_all_time_littles_law_holds_exactly(spans: list[tuple[float, float]]) -> None:
    starts = np.array([start for start, _ in spans])
    ends = starts + np.array([length for _, length in spans])
    (mean,) = occupancy(starts, ends, np.array([0.0, 100.0])).tolist()
    law = LittlesLaw(mean, len(spans) / 100 * statistics.fmean(ends - starts))
    assert law.in_flight == pytest.approx(law.rate_x_e2e, abs=1e-9)


def test_littles_law_says_how_far_it_is_off() -> None:
    assert LittlesLaw(10, 8).off_by_share == pytest.approx(0.2)
    assert LittlesLaw(0, 0).off_by_share is None


# ---- bootstrap ---------------------------------------------------------------------------------------


def test_every_resample_draws_as_many_blocks_as_there_are() -> None:
    weights = resample_blocks(12, 50, np.random.default_rng(1))
    assert weights.shape == (50, 12)
    assert (weights.sum(axis=1) == 12).all()


@given(st.integers(0, 1000), st.integers(1, 400))
def test_a_resample_has_the_percentiles_of_what_was_drawn(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    found, blocks = random.lognormal(3, 1.5, count), random.integers(0, 5, count)
    weights = resample_blocks(5, 3, random)
    cuts = resampled_percentiles(weights, found, blocks, (5, 50, 99))
    for row, drawn in zip(cuts, weights.astype(int), strict=True):
        pool = np.repeat(found, drawn[blocks])
        if pool.size:
            # Within the width of a bin.
            assert row == pytest.approx(np.percentile(pool, (5, 50, 99)), rel=2.6e-3)
        else:
            assert np.isnan(row).all()


def test_sums_of_resamples_are_weighted() -> None:
    weights = np.array([[2.0, 0.0], [1.0, 1.0]])
    sums = resampled_sums(weights, np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]))
    assert sums.tolist() == [6, 8]


def test_the_interval_of_a_mean_covers_it_nineteen_times_in_twenty() -> None:
    random, hits = np.random.default_rng(7), 0
    for _ in range(200):
        found = random.exponential(1.0, 400)
        blocks = np.arange(400) // 10
        weights = resample_blocks(40, 300, random)
        sums = resampled_sums(weights, found, blocks)
        bounds = interval(sums / resampled_sums(weights, np.ones(400), blocks))
        assert bounds is not None
        hits += bounds[0] <= 1.0 <= bounds[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_an_interval_needs_most_of_its_resamples() -> None:
    assert interval(np.array([1.0, np.nan, np.nan, np.inf])) is None
    assert interval(np.array([1.0, 1.0, 1.0, np.nan])) == (1, 1)
