"""The note on disk by which `comptoir down` and `status` find a local stack."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil


@dataclass(frozen=True)
class StackState:
    """The stack on a port."""

    stack_id: str
    pid: int
    created: float
    host: str
    port: int
    dashboard: str
    config: str

    @staticmethod
    def directory(cache_dir: Path, port: int) -> Path:
        """Where the stack on this port keeps its files."""
        return cache_dir / "run" / str(port)

    def write(self, cache_dir: Path) -> None:
        """Write the note."""
        directory = self.directory(cache_dir, self.port)
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / "stack.json.tmp"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(directory / "stack.json")

    @classmethod
    def read(cls, cache_dir: Path, port: int) -> Self | None:
        """The note of the stack on this port, if there is one."""
        path = cls.directory(cache_dir, port) / "stack.json"
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    def all(cls, cache_dir: Path) -> list[Self]:
        """Every note on this machine."""
        ports = [int(path.name) for path in (cache_dir / "run").glob("*") if path.name.isdigit()]
        return [state for port in sorted(ports) if (state := cls.read(cache_dir, port))]

    def remove(self, cache_dir: Path) -> None:
        """Remove the note."""
        (self.directory(cache_dir, self.port) / "stack.json").unlink(missing_ok=True)

    @property
    def base_url(self) -> str:
        """The URL of the endpoint on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_alive(self) -> bool:
        """Whether the foreground process of the stack still runs."""
        try:
            # The time, too: the number may long belong to another process.
            return bool(psutil.Process(self.pid).create_time() == self.created)
        except psutil.Error:
            return False
