"""Tables of figures, and how many digits a figure has. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from loadtests.bench.bars import Verdict


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """The first `left` columns stand left, the figures right.

    Raises:
        ValueError: a row has not as many cells as the head.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, title in enumerate(head):
        made.add_column(Text(title), justify="left" if column < left else "right")
    for row in rows:
        # As text: the title of a process may have brackets.
        made.add_row(*(Text(cell) for _, cell in zip(head, row, strict=True)))
    return made


def number(value: float | None, unit: str = "") -> str:
    """A figure with as many digits as it deserves; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def verdicts(found: Iterable[Verdict]) -> Table:
    """`bar | measured | met`."""
    rows = []
    for verdict in found:
        bar = verdict.bar
        aim = f" (aim {number(bar.aim, bar.unit)})" if bar.aim is not None else ""
        met = "not measured" if verdict.measured is None else "yes" if verdict.is_met else "NO"
        bound = f"{bar.bound} {number(bar.value, bar.unit)}{aim}"
        rows.append([bar.text, bound, number(verdict.measured, bar.unit), met])
    return table(["", "bar", "measured", "met"], rows, left=2)
