"""The journal: a line for each bill, on the disk before it counts, and nothing of any request in it."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from serving.errors import ConfigError
from serving.gateway.journal import Journal
from serving.replica_protocol import Bill, Usage
from serving.tenancy.bills import BilledTo

USAGE = Usage(100, 40, 10, 4, 50, 2)
BILL = Bill("a-1", "q", "k1", "m", "tuned", "/v1/x", False, "aborted", 5.0, USAGE)


async def test_each_bill_is_a_line_of_json(tmp_path: Path) -> None:
    day = [datetime(2026, 1, 31, 23, 59, tzinfo=UTC)]
    journal = Journal(tmp_path / "bills", "gw", now=lambda: day[0])
    await journal.record([BilledTo(BILL, "acme")] * 2)
    day[0] = datetime(2026, 2, 1, tzinfo=UTC)
    await journal.record([BilledTo(BILL, "acme")])
    files = sorted((tmp_path / "bills").iterdir())
    assert [file.name for file in files] == [
        "bills-2026-01-31-gw.jsonl",
        "bills-2026-02-01-gw.jsonl",
    ]
    lines = [orjson.loads(line) for line in files[0].read_bytes().splitlines()]
    assert len(lines) == 2
    assert lines[0] == {
        "bill": "a-1",
        "ended_s": 5.0,
        "request_id": "q",
        "tenant": "acme",
        "key": "k1",
        "model": "m",
        "adapter": "tuned",
        "path": "/v1/x",
        "is_prefill": False,
        "outcome": "aborted",
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 10,
        "reasoning_tokens": 4,
        "distinct_prompt_tokens": 50,
        "sequences": 2,
    }
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Journal(tmp_path / "file", "gw")
    with pytest.raises(ConfigError, match="whose parent exists"):
        Journal(tmp_path / "no" / "such", "gw")


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "bills", "gw")
    for file in (tmp_path / "bills").iterdir():
        file.unlink()
    (tmp_path / "bills").rmdir()
    with pytest.raises(OSError, match="No such file"):
        await journal.record([BilledTo(BILL, "acme")])
