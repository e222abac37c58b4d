"""The folder that a run leaves: written while it goes on, so that an abrupt end loses nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import yaml

from loadtests.run.record import LAG, RECORDS, SCENARIO
from loadtests.workload.scenario import Scenario
from serving.errors import ConfigError

PROGRESS, BEGUN = "progress.json", "begun.json"


class RunFolder:
    """Opens the files of a new run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._records: BinaryIO = (folder / RECORDS).open("ab")
        self._lag: BinaryIO = (folder / LAG).open("ab")

    @classmethod
    def create(cls, folder: Path, scenario: Scenario) -> RunFolder:
        """Make it and leave the scenario in it.

        Raises:
            ConfigError: there is a run in it already: nothing is overwritten.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / RECORDS).exists():
                raise ConfigError(
                    f"--out: {folder} holds a run already; name another folder", param="--out"
                )
            document = scenario.model_dump(mode="json", exclude_defaults=True)
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            (folder / SCENARIO).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--out: {folder}: {error.strerror}", param="--out") from None
        return cls(folder)

    @classmethod
    def unused(cls, folder: Path) -> Path:
        """This folder, or the first of `folder-2`, `folder-3` ... without a run in it."""
        number, candidate = 1, folder
        while (candidate / RECORDS).exists():
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
        return candidate

    def add_records(self, lines: Iterable[bytes]) -> None:
        """Lines of `Record.as_line`."""
        self._records.writelines(lines)
        self._records.flush()

    def add_lag(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """What `LagWatch` saw."""
        self._lag.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        self._lag.flush()

    def note(self, name: str, values: Mapping[str, Any]) -> None:
        """Replace a small file at once, so that nobody reads half of it."""
        beside = self.path / f".{name}.new"
        beside.write_bytes(orjson.dumps(dict(values)))
        os.replace(beside, self.path / name)

    def close(self) -> None:
        """No more."""
        for file in (self._records, self._lag):
            with contextlib.suppress(OSError):
                file.close()


def read_note(folder: Path, name: str) -> dict[str, Any] | None:
    """What `note` wrote; None before that."""
    try:
        found: dict[str, Any] = orjson.loads((folder / name).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if it is not there, and a torn last line is left out."""
    try:
        lines = (folder / name).read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [orjson.loads(line) for line in lines if line.endswith(b"\n")]
