"""What a starting replica leaves for the command that watches it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest

from serving.engine import progress


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(progress.DIRECTORY_VARIABLE, str(tmp_path))
    return tmp_path


def leave(folder: Path, name: str, model: str, stage: str, at: float) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"model": model, "stage": stage, "at": at}))


def test_what_is_reported_is_read(folder: Path) -> None:
    for stage in get_args(progress.Stage):
        progress.report("m", stage)
        assert progress.read(folder) == {"m": stage}
    assert [path.name for path in folder.iterdir()] == [f"{os.getpid()}.json"]


def test_the_latest_of_several_processes_counts(folder: Path) -> None:
    leave(folder, "1", "m", "failed", 1.0)
    leave(folder, "2", "m", "loading", 2.0)
    leave(folder, "3", "n", "ready", 1.5)
    assert progress.read(folder) == {"m": "loading", "n": "ready"}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": "m"}', "3", "null"])
def test_a_damaged_file_is_passed_over(folder: Path, content: str) -> None:
    leave(folder, "1", "m", "ready", 1.0)
    (folder / "2.json").write_text(content)
    assert progress.read(folder) == {"m": "ready"}


def test_without_anyone_watching_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(progress.DIRECTORY_VARIABLE, raising=False)
    progress.report("m", "ready")
    monkeypatch.setenv(progress.DIRECTORY_VARIABLE, str(tmp_path / "gone"))
    progress.report("m", "ready")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_fails_no_replica(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    progress.report("m", "ready")


def test_a_folder_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert progress.read(tmp_path / "none") == {}
