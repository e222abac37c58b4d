"""Every test file that starts something has its place among the units of work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.workers import DEAR, how_many, place, unit_of_work

ROOT = Path(__file__).resolve().parents[2]
FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
# As a decorator, as the marks of a file, or added by the folder's conftest.
MARK = re.compile(r"(?:@|pytestmark = \[?|^ {4})pytest\.mark\.(?:ray|engine|browser)\b", re.M)


def test_every_beginning_of_a_path_is_that_of_a_file() -> None:
    for name, starts in DEAR.items():
        for start in starts:
            assert any(file.startswith(start) for file in FILES), (name, start)


def test_files_that_start_engines_come_after_the_cheap_ones() -> None:
    marked = [file for file in FILES if MARK.search((ROOT / file).read_text(encoding="utf-8"))]
    marked += [file for file in FILES if file.startswith("tests/stack/")]
    assert len(marked) > 20
    assert [file for file in marked if place(f"{file}::test") == 0] == []


@pytest.mark.parametrize(
    ("nodeid", "unit"),
    [
        ("tests/stack/local/test_privacy.py::test_x", "the local stack"),
        ("tests/stack/local/test_openai_errors.py::test_x[a::b]", "the local stack"),
        ("tests/test_settings.py::test_x", "tests/test_settings.py"),
    ],
)
def test_a_unit_of_work_is_a_file_or_what_files_share(nodeid: str, unit: str) -> None:
    assert unit_of_work(nodeid) == unit


def test_cheap_files_come_first() -> None:
    assert place("tests/test_settings.py::test_x") == 0
    assert (
        0
        < place("tests/stack/local/test_privacy.py::test_x")
        < place("tests/stack/test_edges.py::x")
    )


def test_there_is_at_least_one_worker() -> None:
    assert how_many() >= 1
