"""Processes under measurement: starting one, the CPU seconds and memory of a tree, ending all of it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

LOG_TAIL_BYTES = 3000
# Between asking a process to end and killing it.
TERMINATION_S = 3.0


class ProcessError(Exception):
    """A process did not start, stopped answering or does not end."""


class Child:
    """A process that we started, its log and everything that it has started in turn.

    Args:
        talks: its stdin and stdout are for `ask` and `read_line`; otherwise stdout goes to the log.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str] | None = None,
        *,
        talks: bool = False,
    ) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._log_path = Path(self._folder.name) / "log"
        with self._log_path.open("wb") as log:
            # A session of its own: Ctrl-C reaches us alone, and we end it in order.
            self._process = subprocess.Popen(
                command,
                env=os.environ | dict(env or {}),
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                start_new_session=True,
            )
        self._seen: set[psutil.Process] = set()

    @classmethod
    def module(
        cls, name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Child:
        """Run a Python module that talks."""
        return cls(name, [sys.executable, "-m", module, *arguments], env, talks=True)

    @property
    def pid(self) -> int:
        """The process that we started."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process.poll() is None

    @property
    def log_tail(self) -> str:
        """The end of what it wrote to stderr."""
        data = self._log_path.read_bytes()
        return data[-LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def read_line(self, timeout_s: float) -> str:
        """The next line that it prints.

        Raises:
            ProcessError: it printed none in time.
        """
        assert self._process.stdout is not None  # noqa: S101 - it talks
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise self.failed("did not answer")
        return line.decode().strip()

    def ask(self, line: str, timeout_s: float) -> str:
        """Send a line and wait for the one that answers it.

        Raises:
            ProcessError: none came in time.
        """
        assert self._process.stdin is not None  # noqa: S101 - it talks
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self.read_line(timeout_s)

    def failed(self, what: str) -> ProcessError:
        """An error with the tail of the log."""
        return ProcessError(f"{self.name} {what}; the end of its log:\n{self.log_tail}")

    def tree(self) -> list[psutil.Process]:
        """The process and its living descendants, including any that have lost their parent since."""
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            self._seen.update([root, *root.children(recursive=True)])
        self._seen = {process for process in self._seen if is_alive(process)}
        for process in list(self._seen):
            with contextlib.suppress(psutil.Error):
                self._seen.update(process.children(recursive=True))
        return list(self._seen)

    def freeze(self) -> None:
        """Stop the tree where it is: it uses nothing until `thaw`."""
        self._signal(signal.SIGSTOP)
        # What was started in between.
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the tree go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def stop(self, grace_s: float = 30.0) -> None:
        """Ask it to end, wait, then end what is left of its tree; returns when all of it is gone.

        Raises:
            ProcessError: something does not end.
        """
        self.thaw()
        if self.is_running:
            # Not SIGINT: what a shell has put into the background ignores it, and so do its children.
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=grace_s)
        deadline_s = time.monotonic() + grace_s
        is_first = True
        while processes := self.tree():
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.terminate() if is_first else process.kill()
            # Not psutil's wait: it also waits until somebody has collected the dead.
            patience_s = time.monotonic() + TERMINATION_S
            while any(map(is_alive, processes)) and time.monotonic() < patience_s:
                time.sleep(0.02)
            is_first = False
            if time.monotonic() > deadline_s:
                left = ", ".join(str(process.pid) for process in processes)
                raise ProcessError(f"{self.name}: processes do not end: {left}")
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended: one that nobody has collected yet has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that one process has used so far; 0 when it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Resident memory, shared pages counted in each process."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def raise_open_files_limit(least: int) -> None:
    """Let this process and those that it starts open so many files, as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, least) if hard == resource.RLIM_INFINITY else min(max(soft, least), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
