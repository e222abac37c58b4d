"""Between measured points: monotone, through every point, never beyond them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.plan.interpolate import LengthPoint, along, gap, interpolate

tokens = st.floats(10, 10_000)
points = st.lists(
    st.builds(LengthPoint, tokens, tokens, st.floats(0.1, 100)), min_size=1, max_size=6
)
CORNERS = [
    LengthPoint(inputs, outputs, 1e6 / (inputs * outputs**0.5))
    for inputs in (100, 1000)
    for outputs in (50, 500)
]


@given(points, tokens, tokens, st.floats(1, 3), st.floats(1, 3))
def test_longer_requests_are_never_more(
    some: list[LengthPoint], inputs: float, outputs: float, more: float, further: float
) -> None:
    near = interpolate(some, inputs, outputs)
    far = interpolate(some, inputs * more, outputs * further)
    assert far.middle <= near.middle * (1 + 1e-9)
    assert far.low <= near.low * (1 + 1e-9)
    assert far.high <= near.high * (1 + 1e-9)


@given(tokens, tokens, st.floats(-2, 0), st.floats(-2, 0))
def test_power_laws_are_exact_inside(a: float, b: float, first: float, second: float) -> None:
    def rate(inputs: float, outputs: float) -> float:
        return 1000 * inputs**first * outputs**second

    grid = [LengthPoint(x, y, rate(x, y)) for x in (10, 10_000) for y in (10, 10_000)]
    band = interpolate(grid, a, b)
    assert band.low == pytest.approx(rate(a, b), rel=1e-6)
    assert band.high == pytest.approx(rate(a, b), rel=1e-6)


def test_it_passes_through_every_point_that_falls() -> None:
    bent = [LengthPoint(100, 50, 20), LengthPoint(400, 50, 18), LengthPoint(1600, 50, 3)]
    for one in bent:
        assert interpolate(bent, one.input_tokens, 50).middle == pytest.approx(one.rate_per_s)
    between = interpolate(bent, 800, 50)
    assert 3 <= between.low < between.middle < between.high <= 18


def test_where_noise_made_a_rate_rise_the_lower_one_counts() -> None:
    noisy = [LengthPoint(100, 50, 10), LengthPoint(400, 50, 11)]
    assert interpolate(noisy, 400, 50).high == pytest.approx(10)


def test_between_two_lengths_that_both_differ() -> None:
    two = [LengthPoint(100, 50, 10), LengthPoint(400, 200, 5)]
    assert interpolate(two, 200, 100).middle == pytest.approx(math.sqrt(50))


@pytest.mark.parametrize(
    ("inputs", "outputs", "side"),
    [
        (300, 100, None),
        (1000, 500, None),
        (1020, 510, None),  # a run's lengths are never exactly those asked for
        (1100, 100, "longer"),
        (300, 600, "longer"),
        (90, 60, "shorter"),
        (300, 40, "shorter"),
    ],
)
def test_beyond_the_points_the_missing_side_is_named(
    inputs: float, outputs: float, side: str | None
) -> None:
    assert gap(CORNERS, inputs, outputs) == side


def test_a_curve_rises_and_is_constant_beyond_its_ends() -> None:
    curve = [(1.0, 2.0), (4.0, 8.0), (16.0, 7.0)]
    assert along(curve, 2.0) == pytest.approx(4.0)
    assert along(curve, 0.1) == 2.0
    assert along(curve, 10.0) == pytest.approx(8.0)
    assert along(curve, 99.0) == pytest.approx(8.0)
