"""Titles of processes that run, that end while one looks, and that have a title of their own choice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from loadtests.processes.titles import (
    ENGINE,
    WORKER,
    below,
    engines_under,
    is_called,
    title_of,
    workers_under,
)

SPAWNED = (
    "/usr/bin/python -c from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5)"
)
TRACKER = "/usr/bin/python -m multiprocessing.resource_tracker"
WAIT = "print('there', flush=True); input()"


@contextmanager
def child() -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A process that waits."""
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process, psutil.Process(process.pid)
        process.kill()


def test_a_process_that_runs_has_its_title_and_is_below_its_parent() -> None:
    with child() as (_, process):
        assert title_of(process).endswith(WAIT)
        assert process in below(psutil.Process())


def test_one_that_has_ended_has_none_also_before_it_is_collected() -> None:
    with child() as (started, process):
        started.kill()
        # It has ended, and nobody has collected it: a zombie.
        os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(psutil.ZombieProcess):
            process.cmdline()
        assert (title_of(process), below(process)) == ("", [])
        started.wait()
        assert (title_of(process), below(process)) == ("", [])


def test_what_may_not_be_looked_at_has_no_title(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(process: psutil.Process) -> list[str]:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "cmdline", deny)
    assert title_of(psutil.Process()) == ""


def test_an_engine_whose_title_did_not_take_is_found_by_how_it_was_started() -> None:
    assert is_called("VLLM::EngineCore_DP0", ENGINE)
    assert is_called(SPAWNED, ENGINE)
    assert is_called(SPAWNED, WORKER)
    assert not is_called(SPAWNED, "ray::ServeReplica:gateway")
    assert not is_called(TRACKER, ENGINE)
    assert not is_called("", ENGINE)


class Fake:
    """A process of a tree that is made up."""

    def __init__(self, pid: int, parent: int, title: str) -> None:
        self.pid, self._parent, self._title = pid, parent, title

    def ppid(self) -> int:
        return self._parent

    def cmdline(self) -> list[str]:
        if self._title == "gone":
            raise psutil.ZombieProcess(self.pid)
        return self._title.split(" ")


@pytest.mark.parametrize(
    ("tree", "engines", "workers"),
    [
        ({2: (1, "VLLM::EngineCore"), 3: (1, TRACKER)}, [2], []),
        ({2: (1, SPAWNED), 3: (1, "gone")}, [2], []),
        (
            {
                2: (1, "VLLM::EngineCore"),
                3: (2, "VLLM::Worker_TP0"),
                4: (2, SPAWNED),
                5: (2, TRACKER),
            },
            [2],
            [3, 4],
        ),
        ({2: (1, SPAWNED), 3: (2, SPAWNED), 4: (2, SPAWNED)}, [2], [3, 4]),
        ({2: (1, "VLLM::EngineCore_DP0"), 3: (1, "VLLM::EngineCore_DP1")}, [2, 3], []),
        ({2: (1, "gone")}, [], []),
    ],
)
def test_engines_are_told_from_their_workers(
    monkeypatch: pytest.MonkeyPatch,
    tree: Mapping[int, tuple[int, str]],
    engines: list[int],
    workers: list[int],
) -> None:
    found = [Fake(pid, *about) for pid, about in tree.items()]
    monkeypatch.setattr("loadtests.processes.titles.below", lambda root: found)
    root: Any = Fake(1, 0, "root")
    assert [one.pid for one in engines_under(root)] == engines
    assert [one.pid for one in workers_under(root)] == workers
