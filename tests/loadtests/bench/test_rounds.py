"""The table of rounds: medians, and errors that are added up and hold the bars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.bench.bars import Bar
from loadtests.bench.null.idle import IdlePlan
from loadtests.bench.null.rounds import conclude

ROWS = (("time to the first chunk", "ttft_ms", "ms"), ("errors", "errors", ""))
ROUNDS = [{"ttft_ms": value, "errors": 1.0} for value in (3.0, 9.0, 4.0)]
BARS = (Bar("errors", "errors", "at most", 0),)


@pytest.mark.parametrize(
    ("errors", "strict", "code"), [(0.0, True, 0), (3.0, True, 1), (3.0, False, 0)]
)
def test_medians_are_shown_and_all_errors_count(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    errors: float,
    strict: bool,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    title = "streams that wait"
    assert conclude("idle", title, ROWS, IdlePlan(), ROUNDS, errors, BARS, strict=strict) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [*title.split(), "median", "round", "1", "round", "2", "round", "3"]
    assert lines[3].split()[-5:] == ["4.00", "ms", "3.00", "9.00", "4.00"]
    (path,) = (tmp_path / "bench-results").glob("idle-*.json")
    left = json.loads(path.read_text())
    assert left["median"] == {"ttft_ms": 4.0, "errors": errors}
    assert (left["plan"]["streams"], len(left["rounds"])) == (1000, 3)
