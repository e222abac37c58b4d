"""A bill sink in a folder of text files: one JSON object a line, on the disk before it counts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from serving.config.paths import expanded
from serving.errors import ConfigError
from serving.tenancy.bills import BilledTo


def _now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """One gateway's files: `bills-DAY-GATEWAY.jsonl`, a new one each day (UTC).

    Args:
        folder: created if its parent exists; gateways of several machines may share it.
        gateway: tells this process's files from others'.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, gateway: str, now: Callable[[], datetime] = _now) -> None:
        self._folder = expanded(folder, "metering.journal")
        self._gateway = gateway
        self._now = now
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            os.close(self._open())
        except OSError as error:
            raise ConfigError(
                f"metering.journal: {str(folder)!r} cannot be written: {error.strerror}; name a folder that "
                "the gateway may write to, whose parent exists",
                param="metering.journal",
            ) from None

    async def record(self, bills: Sequence[BilledTo]) -> None:
        """Append bills, and wait until they are on the disk.

        Raises:
            OSError: as the system says.
        """
        text = b"".join(orjson.dumps(each.as_dict()) + b"\n" for each in bills)
        await asyncio.to_thread(self._append, text)

    async def close(self) -> None:
        """Close the file."""

    def _append(self, text: bytes) -> None:
        file = self._open()
        try:
            view = memoryview(text)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)

    def _open(self) -> int:
        path = self._folder / f"bills-{self._now():%Y-%m-%d}-{self._gateway}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
