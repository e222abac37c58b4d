"""A sweep's view on a terminal: its rates, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtests.analysis.point import Point
from loadtests.analysis.rate_search import rates_of
from loadtests.plan.measured import wanted_s
from loadtests.plan.sweeps import parse_sweep
from serving.commands.output import note, say, show


def show_rates(document: Mapping[str, Any], target: float) -> None:
    """A row for each rate, with all its runs together; `target` is the share that the SLO wants."""
    table = Table("rate/s", "runs", "requests", "good", "at least", "TTFT p95", "verdict", box=None)
    for one in rates_of([Point(**one) for one in document["points"]], target):
        table.add_row(
            f"{one.rate_per_s:.3g}",
            str(len(one.runs)),
            str(sum(each.requests for each in one.runs)),
            f"{100 * one.attainment:.1f} %",
            f"{100 * one.low:.1f} %",
            f"{max(each.ttft_p95_ms for each in one.runs):.0f} ms",
            one.verdict,
        )
    show(table)


def show_found(document: dict[str, Any], folder: Path) -> None:
    """The rate that was confirmed, and whether a plan trusts it."""
    say(f"holds {document['rate_per_s']:.3g} requests/s; sweep: {folder / 'sweep.json'}")
    wanted = wanted_s(parse_sweep(document, str(folder)))
    if wanted is not None:
        note(
            "its runs were short beside the time of one request, and may hold more than lasts: "
            f"`comptoir plan` trusts those of --duration {wanted:.0f} and more"
        )
