"""Draws the picture of a load report for README.md (`docs/load-report.png`), from the sweep in a folder.

The sweep that it shows is one of the reference server, which plays a replica with known timing:

    python -m loadtests.reference --port 8100 --mode queue --slots 32 --knee 8 --itl-ms 40 --ttft-ms 300
    comptoir load sweep scripts/load_report_picture.yaml --from 3 --duration 35 --precision 0.2 \\
        --out runs/readme
    python scripts/load_report_picture.py runs/readme
"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from loadtests.commands.run_sweep import SWEEP
from loadtests.report.picture import draw
from loadtests.report.sweep_charts import charts_of
from loadtests.report.sweep_page import verdict_of

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "load-report.png"
# Of the report's four charts, the two that answer how much the endpoint holds.
SHOWN = ("ttft", "attainment")
WIDTH_IN = 8.0


def main() -> None:
    """Write the picture of the sweep in the folder that the command line names."""
    sweep = orjson.loads((Path(sys.argv[1]) / SWEEP).read_bytes())
    charts = [one for one in charts_of(sweep) if one.key in SHOWN]
    draw(
        charts,
        PICTURE,
        title="comptoir load sweep chat",
        note=verdict_of(sweep).headline,
        columns=len(charts),
        row_height=2.9,
        width=WIDTH_IN,
    )


if __name__ == "__main__":
    main()
