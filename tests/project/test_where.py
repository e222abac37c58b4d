"""The answers of docs/README.md to "Where is …?" are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"^\| (.+\?) \| `([\w/.]+\.py)` \| (.+) \|$", (ROOT / "docs/README.md").read_text(), re.M
)


def defined_in(path: Path) -> set[str]:
    """What a module defines at its top."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        found |= {one.id for one in targets if isinstance(one, ast.Name)}
    return found


@pytest.mark.parametrize(("question", "file", "names"), ROWS, ids=[row[0] for row in ROWS])
def test_each_name_is_defined_in_the_file(question: str, file: str, names: str) -> None:
    wanted = set(re.findall(r"`(\w+)`", names))
    assert wanted, question
    assert wanted <= defined_in(ROOT / file), question


def test_there_are_questions() -> None:
    assert len(ROWS) > 10
