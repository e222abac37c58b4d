from __future__ import annotations

import math

import pytest

from loadtests.bench.bars import Bar, Verdict
from loadtests.bench.tables import number, table, verdicts
from serving.commands.output import as_lines


def test_names_stand_left_and_figures_right() -> None:
    made = table(["name", "x"], [["a", "1"], ["long [name]", "100"]])
    assert as_lines(made) == [
        "name            x",
        "─" * 17,
        "a               1",
        "long [name]   100",
    ]


def test_a_row_with_a_missing_cell_is_refused() -> None:
    with pytest.raises((ValueError, IndexError)):
        table(["a", "b"], [["only one"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (0, "0"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_a_figure_has_as_many_digits_as_it_deserves(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_bar_shows_its_bound_its_aim_and_whether_it_is_met() -> None:
    bar = Bar("chunks", "c", "at least", 10_000, "/s", aim=16_000)
    made = verdicts([Verdict(bar, 9_000.0), Verdict(bar, None), Verdict(bar, 10_000.0)])
    _, _, missed, unknown, met = as_lines(made)
    assert "at least 10,000 /s (aim 16,000 /s)" in missed
    assert missed.split()[-1] == "NO"
    assert unknown.endswith("not measured")
    assert met.split()[-1] == "yes"
