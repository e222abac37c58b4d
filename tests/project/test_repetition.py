"""No two files outside tests say the same for ten lines."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES = 10


def lines(path: Path) -> list[tuple[int, str]]:
    """What a module does, line by line: imports and empty lines are left out."""
    found = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    stripped = ((number, line.strip()) for number, line in found)
    return [
        (number, line)
        for number, line in stripped
        if line and not line.startswith(("import ", "from "))
    ]


def test_no_ten_lines_stand_in_two_files() -> None:
    places: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for folder in ("serving", "loadtests", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            said = lines(path)
            for start in range(len(said) - LINES + 1):
                run = tuple(line for _, line in said[start : start + LINES])
                places[run].setdefault(str(path.relative_to(ROOT)), said[start][0])
    assert len(places) > 10_000
    assert [where for where in places.values() if len(where) > 1] == []
