"""A stack's process and its foreground: whatever signal ends one of them, the other leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# Works until it is told to stop, with a child process that stands for Ray.
SCRIPT = """
import subprocess, sys, time
from pathlib import Path
from serving.commands.stack.apart import run_apart
folder, slow = Path(sys.argv[1]), len(sys.argv) > 2

def work(stop):
    ray = subprocess.Popen(["sleep", "60"])
    Path(folder, "pids").write_text(f"{ray.pid} {__import__('os').getpid()}")
    try:
        stop.event.wait(30)
        if slow:
            Path(folder, "stopping").touch()
            time.sleep(30)
    finally:
        ray.kill()
        ray.wait()
        Path(folder, "ended").touch()
    return stop.status if stop.signal else 7

def clean():
    with_pid = Path(folder, "pids").read_text().split()[0]
    subprocess.run(["kill", "-9", with_pid], stderr=subprocess.DEVNULL)
    Path(folder, "cleaned").touch()

sys.exit(run_apart(work, clean))
"""


class Running:
    """The foreground of such a script, in a group of its own as a shell would have it."""

    def __init__(self, folder: Path, *before: str, slow: bool = False) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", SCRIPT, str(folder), *(["slow"] if slow else [])],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            # As in a terminal, also where the tests themselves run under nohup.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        pids = self.wait_for("pids", lambda path: len(path.read_text().split()) == 2)
        self.ray, self.work = map(int, pids.read_text().split())

    def wait_for(self, name: str, how: object = None) -> Path:
        path, deadline = self.folder / name, time.monotonic() + 20
        while not path.exists() or (callable(how) and not how(path)):
            assert time.monotonic() < deadline, name
            time.sleep(0.01)
        return path

    def left(self) -> list[int]:
        return [pid for pid in (self.ray, self.work, self.process.pid) if lives(pid)]


def lives(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in (tmp_path / "pids").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_stops_the_work_in_order(
    folder: Path, signum: signal.Signals
) -> None:
    running = Running(folder)
    assert os.getsid(running.work) == running.work != os.getsid(running.process.pid)
    os.killpg(running.process.pid, signum)
    assert running.process.wait(20) == 128 + signum
    assert (folder / "ended").exists()
    assert running.left() == []


def test_a_second_signal_does_not_wait(folder: Path) -> None:
    running = Running(folder, slow=True)
    os.killpg(running.process.pid, signal.SIGINT)
    running.wait_for("stopping")
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.process.wait(20) == 128 + signal.SIGINT
    assert (folder / "ended").exists()
    assert running.left() == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGQUIT, signal.SIGUSR1])
def test_a_foreground_that_is_killed_leaves_a_process_that_cleans_up(
    folder: Path, signum: signal.Signals
) -> None:
    running = Running(folder)
    os.killpg(running.process.pid, signum)
    assert running.process.wait(20) == -signum
    running.wait_for("ended", lambda _: not lives(running.work))
    assert running.left() == []


def test_a_stack_that_is_killed_is_cleaned_up_by_the_foreground(folder: Path) -> None:
    running = Running(folder)
    os.kill(running.work, signal.SIGKILL)
    assert running.process.wait(20) == 128 + signal.SIGKILL
    assert (folder / "cleaned").exists()
    assert running.left() == []


def test_nohup_is_heeded(folder: Path) -> None:
    running = Running(folder, "nohup")
    os.killpg(running.process.pid, signal.SIGHUP)
    os.kill(running.work, signal.SIGHUP)
    assert running.left() == [running.ray, running.work, running.process.pid]
    os.killpg(running.process.pid, signal.SIGTERM)
    assert running.process.wait(20) == 128 + signal.SIGTERM
    assert running.left() == []


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        ("return 3", 3, ""),
        ("raise StackError('Ray is gone')", 1, "error: Ray is gone"),
        ("raise ConfigError('a key is wrong')", 2, "error: a key is wrong"),
        ("open('/proc/none/x', 'w')", 1, "error: /proc/none/x: No such file or directory: make it"),
        ("raise OSError('surprise')", 1, "OSError: surprise"),
        ("raise ValueError('surprise')", 1, "ValueError: surprise"),
        ("raise SystemExit(15)", 143, ""),
    ],
)
def test_how_the_work_ends_is_how_the_command_ends(work: str, code: int, said: str) -> None:
    script = (
        "from serving.commands.stack.apart import run_apart\n"
        "from serving.errors import ConfigError, StackError\n"
        f"def work(stop):\n    {work}\n"
        "import sys; sys.exit(run_apart(work, lambda: None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == code
    assert said in done.stderr
