"""Shows how one run compares with another. What `comptoir load compare` calls."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from loadtests.analysis.comparison import compare
from serving.commands.output import console, note, show


def show_comparison(
    baseline: Path, candidate: Path, tolerance: float, *, force: bool, as_json: bool
) -> bool:
    """Print it; returns whether the candidate is worse."""
    result = compare(baseline, candidate, tolerance=tolerance, force=force)
    if as_json:
        console.print_json(data=result)
    else:
        table = Table("", "baseline", "candidate", "ratio", "95 % interval", "verdict", box=None)
        for one in result["figures"]:
            table.add_row(
                one["name"],
                f"{one['baseline']:.4g}",
                f"{one['candidate']:.4g}",
                f"{one['ratio']:.3f}",
                f"{one['low']:.3f} to {one['high']:.3f}",
                one["verdict"],
            )
        show(table)
        for remark in result["notes"]:
            note(remark)
    return bool(result["worse"])
