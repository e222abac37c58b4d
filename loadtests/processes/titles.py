"""The roles of running processes, by their titles. One that ends meanwhile is simply absent."""

from __future__ import annotations

import contextlib

import psutil

# How vLLM calls its engine processes, and the workers of one that has several.
ENGINE, WORKER = "VLLM::EngineCore", "VLLM::Worker"
# vLLM's title now and then does not take, and comes late to a process that starts; all of them are spawned.
_SPAWNED = "multiprocessing.spawn"


def title_of(process: psutil.Process) -> str:
    """Its command line; "" of one that has ended, also if nobody has collected it yet."""
    # NoSuchProcess, ZombieProcess and AccessDenied are all of this kind.
    with contextlib.suppress(psutil.Error, OSError):
        return " ".join(process.cmdline())
    return ""


def below(root: psutil.Process) -> list[psutil.Process]:
    """The processes that it started, and theirs; none when it has ended."""
    with contextlib.suppress(psutil.Error, OSError):
        found: list[psutil.Process] = root.children(recursive=True)
        return found
    return []


def is_called(title: str, wanted: str) -> bool:
    """Whether a title begins so; an engine or a worker can also be known by how it was started."""
    return title.startswith(wanted) or (wanted in (ENGINE, WORKER) and _SPAWNED in title)


def engines_under(root: psutil.Process) -> list[psutil.Process]:
    """The engine processes below another: one for each engine that runs, starts or ends."""
    called = [one for one in below(root) if is_called(title_of(one), ENGINE)]
    pids = {one.pid for one in called}
    # A worker of an engine that has several is a spawned process too.
    return [one for one in called if _parent_of(one) not in pids]


def workers_under(root: psutil.Process) -> list[psutil.Process]:
    """The workers of the engines below another process, where an engine has several."""
    engines = {one.pid for one in engines_under(root)}
    return [
        one
        for one in below(root)
        if _parent_of(one) in engines and is_called(title_of(one), WORKER)
    ]


def _parent_of(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error, OSError):
        return int(process.ppid())
    return 0
