"""The output of the modes of the gateway alone: a table of rounds, a file, the bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtests.bench import output
from loadtests.bench.bars import Bar, judge
from loadtests.bench.summary import medians
from loadtests.bench.tables import number, table

# A text, the figure's name, and its unit.
Row = tuple[str, str, str]


def conclude(
    kind: str,
    title: str,
    rows: Sequence[Row],
    plan: Any,
    results: Sequence[Mapping[str, float]],
    errors: float,
    bars: Iterable[Bar],
    *,
    strict: bool,
) -> int:
    """Print and write what the rounds found; the exit code.

    Args:
        errors: of all rounds together: they are added up, all other figures are medians.
    """
    figures = medians(results) | {"errors": errors}
    cells = [
        [text, number(figures[name], unit), *(number(found[name]) for found in results)]
        for text, name, unit in rows
    ]
    head = [title, "median", *(f"round {n + 1}" for n in range(len(results)))]
    output.show_below(table(head, cells))
    path = output.write(kind, {"plan": vars(plan), "median": figures, "rounds": results})
    code = output.conclude(judge(bars, figures), strict=strict)
    print(f"\nwritten to {path}")
    return code
