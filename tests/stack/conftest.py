"""Real stacks: `comptoir up` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtests.processes.free_ports import free_port
from serving.commands.stack import processes
from serving.commands.stack.state import StackState

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 300
# Goes through every kind of request; test_privacy.py then looks for it in every file.
CANARY = "xylograph-7d1f-zanzibar"


@dataclass(frozen=True)
class Stack:
    """A running stack and where it leaves its traces."""

    port: int
    cache_dir: Path
    log: Path | None

    @property
    def url(self) -> str:
        """Where the endpoint answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> StackState:
        """The note it left on disk."""
        state = StackState.read(self.cache_dir, self.port)
        assert state is not None, "the stack left no note"
        return state

    @property
    def session_root(self) -> Path:
        """Ray's folder, logs included."""
        return processes.session_root(self.port)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self.log.read_text() if self.log else ""


def start(config: Path, folder: Path, **env: str) -> tuple[subprocess.Popen[bytes], Stack]:
    """Start a stack and wait until it says that it is ready."""
    port = free_port()
    log = folder / "up.log"
    environment = os.environ | {
        "COMPTOIR_CACHE_DIR": str(folder / "cache"),
        "COMPTOIR_DEVICE": "cpu",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.cli", "up", str(config), "--port", str(port)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment | env,
        )
    stack = Stack(port, folder / "cache", log)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while "ready: " not in stack.output:
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            pytest.fail(f"the stack did not start:\n{stack.output[-4000:]}")
        time.sleep(0.5)
    return process, stack


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask it to stop, as Ctrl-C does, and wait."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait(timeout=120)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stack" in item.nodeid:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.engine)
