"""Plain text tables. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from loadtests.bench.bars import Verdict

LEFT, RIGHT = "<", ">"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Columns as wide as their content; the first `left` are aligned to the left."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            f"{cell:{LEFT if column < left else RIGHT}{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def number(value: float | None, unit: str = "") -> str:
    """A figure with as many digits as it deserves; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def verdicts(found: Iterable[Verdict]) -> str:
    """`bar | measured | met`."""
    rows = []
    for verdict in found:
        bar = verdict.bar
        aim = f" (aim {number(bar.aim, bar.unit)})" if bar.aim is not None else ""
        met = "not measured" if verdict.measured is None else "yes" if verdict.is_met else "NO"
        bound = f"{bar.bound} {number(bar.value, bar.unit)}{aim}"
        rows.append([bar.text, bound, number(verdict.measured, bar.unit), met])
    return table(["", "bar", "measured", "met"], rows, left=2)
