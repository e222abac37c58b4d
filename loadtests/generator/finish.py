"""The products of a finished run: summary, report, pictures, and the records as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from loadtests import report
from loadtests.analysis.summary import summarise
from loadtests.run.folder import read_rows
from loadtests.run.record import LAG, METRICS, SCENARIO, SUMMARY, Record, read_records
from loadtests.workload.scenario import Scenario

PARQUET = "records.parquet"
# Of a run: it can be believed, it cannot, or answers with status 200 were none.
EXIT_OK, EXIT_INVALID, EXIT_BROKEN = 0, 4, 6


def finish(folder: Path, *, with_report: bool = True) -> dict[str, Any]:
    """Summarise the run in this folder; returns the summary."""
    scenario = Scenario.load(folder / SCENARIO)
    records = list(read_records(folder))
    summary = summarise(scenario, records, read_rows(folder, LAG), read_rows(folder, METRICS))
    (folder / SUMMARY).write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    if records:
        write_parquet(folder / PARQUET, records)
    if with_report:
        report.build(folder)
    return summary


def exit_code(summary: Mapping[str, Any]) -> int:
    """The exit code of a finished run."""
    if not summary["valid"]:
        return EXIT_INVALID
    return EXIT_BROKEN if summary["broken"] else EXIT_OK


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """The records as columns, for notebooks: one row a request, `gaps_ms` a list."""
    table = pa.Table.from_pylist([asdict(record) for record in records])
    pq.write_table(table, path, compression="zstd")


def load_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run."""
    found: dict[str, Any] = orjson.loads((folder / SUMMARY).read_bytes())
    return found
