"""A stack of a check: started from a document, and ended with its block, whatever happens in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtests.checks.stack import Stack

DOCUMENT: dict[str, Any] = {"applications": []}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Processes that were started instead of stacks."""
    found: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def sleep(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        found.append(real(["sleep", "600"], **options))
        return found[-1]

    monkeypatch.setattr("loadtests.checks.stack.subprocess.Popen", sleep)
    return found


def test_it_ends_with_its_block(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    path = tmp_path / "x.yaml"

    def interrupted() -> None:
        with Stack.of(DOCUMENT, path, "qwen3"):
            assert started[0].poll() is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started[0].wait(timeout=10) is not None
    assert yaml.safe_load(path.read_text()) == DOCUMENT
