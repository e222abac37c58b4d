from __future__ import annotations

import math

from loadtests.bench.summary import medians, ratio


def test_the_median_of_each_figure_is_taken_over_the_rounds_that_have_it() -> None:
    rounds = [{"a": 1.0, "b": 5.0}, {"a": 9.0}, {"a": 2.0}]
    assert medians(rounds) == {"a": 2.0, "b": 5.0}


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert math.isnan(ratio(3.0, 0.0))
    assert math.isnan(ratio(3.0, math.nan))
