"""Starts Locust for one run, shows its progress, and reports its end. What `comptoir load` calls."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtests.generator.finish import EXIT_BROKEN, EXIT_INVALID, load_summary
from loadtests.run.folder import PROGRESS, read_note
from loadtests.run.record import RECORDS, SUMMARY
from loadtests.workload.scenario import Scenario
from serving.errors import ComptoirError, ConfigError

LOG = "locust.log"
POLL_S = 0.5
# Locust's own start, and what it does at the end.
START_S, END_S = 60.0, 120.0

# Gets the counts of `Progress` and `t_s`, the seconds since the run began.
OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    folder: Path
    summary: dict[str, Any]
    was_interrupted: bool = False

    @property
    def valid(self) -> bool:
        """Whether it says something about the server."""
        return bool(self.summary["valid"])


def run(
    scenario: Scenario,
    folder: Path,
    processes: int = 1,
    web_port: int | None = None,
    on_progress: OnProgress | None = None,
) -> Finished:
    """One run; Ctrl-C ends it early and keeps what was measured.

    Raises:
        ConfigError: the folder holds a run already.
        ComptoirError: Locust failed; its log is in the folder.
    """
    if (folder / RECORDS).exists():
        raise ConfigError(
            f"--out: {folder} holds a run already; name another folder", param="--out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="comptoir-load-") as scratch:
        path = Path(scratch) / "scenario.yaml"
        path.write_text(yaml.safe_dump(scenario.model_dump(mode="json")), encoding="utf-8")
        command = _command(path, folder, processes, web_port)
        with (folder / LOG).open("wb") as log:
            # A process group of its own: Ctrl-C reaches it through us, once.
            child = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            limit_s = START_S + scenario.duration_s + scenario.drain_s + END_S
            with _terminate_as_interrupt():
                interrupted = _wait(child, folder, None if web_port else limit_s, on_progress)
    if child.returncode not in (0, 1, EXIT_INVALID, EXIT_BROKEN) or not (folder / SUMMARY).exists():
        raise ComptoirError(f"the load generator failed: {_reason(folder / LOG)}")
    return Finished(folder, load_summary(folder), interrupted)


def _command(scenario: Path, folder: Path, processes: int, web_port: int | None) -> list[str]:
    locustfile = Path(__file__).with_name("locustfile.py")
    command = [sys.executable, "-P", "-m", "locust", "-f", str(locustfile)]
    command += ["--scenario", str(scenario), "--out", str(folder), "--loglevel", "WARNING"]
    if web_port is None:
        command += ["--headless", "--only-summary", "--reset-stats"]
    else:
        command += ["--web-host", "127.0.0.1", "--web-port", str(web_port), "--autostart"]
    if processes > 1:
        command += ["--processes", str(processes)]
    return command


def _wait(
    child: subprocess.Popen[bytes],
    folder: Path,
    limit_s: float | None,
    on_progress: OnProgress | None,
) -> bool:
    """Until it ends; returns whether someone wanted it to end earlier."""
    began_s, interrupted = time.monotonic(), False
    while True:
        try:
            child.wait(POLL_S)
            return interrupted
        except subprocess.TimeoutExpired:
            progress = read_note(folder, PROGRESS)
            if progress is not None and on_progress is not None:
                on_progress(progress)
        except KeyboardInterrupt:
            if interrupted:
                os.killpg(child.pid, signal.SIGKILL)
            interrupted = True
            child.send_signal(signal.SIGINT)
        if limit_s is not None and time.monotonic() - began_s > limit_s:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise ComptoirError(f"the load generator did not end in {limit_s:.0f} s")


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Whoever ends us with SIGTERM means the generator too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(log: Path) -> str:
    """The last line of its log."""
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    errors = [line for line in lines if line.startswith("error: ")]
    said = (errors or lines or ["it said nothing"])[-1]
    return said.removeprefix("error: ")[:500]
