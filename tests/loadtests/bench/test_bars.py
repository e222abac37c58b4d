from __future__ import annotations

import math

import pytest

from loadtests.bench.bars import COMPARE_BARS, IDLE_BARS, NULL_BARS, SOAK_BARS, Bar, judge


@pytest.mark.parametrize(
    ("bound", "measured", "met"),
    [
        ("at least", 1.0, True),
        ("at least", 0.99, False),
        ("above", 1.0, False),
        ("above", 1.01, True),
        ("at most", 1.0, True),
        ("at most", 1.01, False),
        ("below", 1.0, False),
        ("below", 0.99, True),
    ],
)
def test_a_bound_includes_its_value_or_not_as_it_says(
    bound: str, measured: float, met: bool
) -> None:
    assert Bar("", "f", bound, 1.0).is_met(measured) is met  # type: ignore[arg-type]


@pytest.mark.parametrize("figures", [{}, {"f": math.nan}])
def test_what_was_not_measured_is_neither_met_nor_missed(figures: dict[str, float]) -> None:
    (verdict,) = judge([Bar("", "f", "at most", 1.0)], figures)
    assert verdict.measured is None
    assert not verdict.is_met


@pytest.mark.parametrize("bars", [COMPARE_BARS, IDLE_BARS, NULL_BARS, SOAK_BARS])
def test_no_two_bars_are_about_the_same_figure(bars: tuple[Bar, ...]) -> None:
    assert len({bar.figure for bar in bars}) == len(bars)
