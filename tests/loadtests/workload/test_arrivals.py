"""Send times: as many as the rate says, spread as the kind says, the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.workload.arrivals import send_times
from loadtests.workload.scenario import ArrivalsConfig

KINDS: list[dict[str, Any]] = [
    {"kind": "constant", "rate_per_s": 20},
    {"kind": "poisson", "rate_per_s": 20},
    {"kind": "gamma", "rate_per_s": 20, "cv": 3},
    {"kind": "ramp", "rate_per_s": 10, "to_per_s": 30},
    {"kind": "steps", "rates_per_s": [10, 30]},
]


def times(duration_s: float = 500.0, seed: int = 1, **keys: Any) -> Any:
    return send_times(ArrivalsConfig(**keys), duration_s, np.random.default_rng(seed))


@pytest.mark.parametrize("keys", KINDS)
def test_there_are_as_many_as_the_rate_says(keys: dict[str, Any]) -> None:
    found = times(**keys)
    # Ten thousand are expected; of bursts with cv 3 the deviation is three times the square root.
    assert abs(found.size - 10_000) < 900
    assert (np.diff(found) >= 0).all()
    assert found[0] >= 0
    assert found[-1] < 500
    assert (found == times(**keys)).all()
    if keys["kind"] != "constant":
        assert not np.array_equal(found[:100], times(seed=2, **keys)[:100])


@pytest.mark.parametrize(("kind", "cv"), [("constant", 0), ("poisson", 1), ("gamma", 3)])
def test_gaps_vary_as_the_kind_says(kind: str, cv: float) -> None:
    gaps = np.diff(times(kind=kind, rate_per_s=20, cv=3))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.25)


@pytest.mark.parametrize("keys", KINDS[3:])
def test_the_rate_changes_over_time(keys: dict[str, Any]) -> None:
    found = times(**keys)
    first, second = (found < 250).sum(), (found >= 250).sum()
    expected = 3.0 if keys["kind"] == "steps" else 25 / 15
    assert second / first == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("first", "last"), [(10, 30), (30, 10), (1, 20)])
def test_a_ramp_rises_in_a_straight_line(first: float, last: float) -> None:
    found = times(kind="ramp", rate_per_s=first, to_per_s=last)
    # What is to be expected up to each time makes a ramp uniform; 1.95 is Kolmogorov's bound at 0.1 %.
    expected = first * found + (last - first) * found**2 / 1000
    uniform = expected / (250 * (first + last))
    ranks = np.arange(1, found.size + 1) / found.size
    assert np.abs(ranks - uniform).max() * np.sqrt(found.size) < 1.95


def test_steps_share_the_time_equally() -> None:
    found = times(duration_s=400, kind="steps", rates_per_s=[50, 1, 100, 20])
    counts = np.histogram(found, bins=[0, 100, 200, 300, 400])[0]
    for count, rate in zip(counts, [50, 1, 100, 20], strict=True):
        assert abs(count - 100 * rate) < 4 * np.sqrt(100 * rate)


@given(
    kind=st.sampled_from(["constant", "poisson", "gamma", "ramp", "steps"]),
    rate=st.floats(0.001, 500),
    duration=st.floats(0.001, 20),
    cv=st.floats(0.05, 20),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_times_are_sorted_and_inside(
    kind: str, rate: float, duration: float, cv: float, seed: int
) -> None:
    rates = {"rate_per_s": rate, "to_per_s": 500.5 - rate, "rates_per_s": [rate, 1, rate / 2]}
    found = times(duration, seed, kind=kind, cv=cv, **rates)
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found < duration)).all()


def test_a_closed_loop_has_no_times() -> None:
    with pytest.raises(ValueError, match="closed has no times"):
        times(kind="closed")
