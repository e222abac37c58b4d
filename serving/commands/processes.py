"""Finds and ends the processes of one local stack, and only those.

A process belongs to a stack when it inherited COMPTOIR_STACK with the stack's random value, or when it
has a file open under the stack's own folder: Ray's processes rename themselves, which wipes their
environment, and all of them log there.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

import psutil

STACK_VARIABLE = "COMPTOIR_STACK"


def session_root(port: int) -> Path:
    """The folder of Ray's sessions for the stack on this port.

    Ray's sockets live under it and their paths may have 107 bytes: a deep cache folder would not do.
    """
    return Path(tempfile.gettempdir()) / f"comptoir-{os.getuid()}-{port}"


def of_stack(stack_id: str, port: int) -> list[psutil.Process]:
    """Living processes of the stack, this one left out."""
    root = str(session_root(port)) + "/"
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(STACK_VARIABLE) == stack_id or _has_open(process.pid, root):
                found.append(process)
    return found


def _has_open(pid: int, root: str) -> bool:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith(root):
                return True
    return False


def end_all(stack_id: str, port: int, grace_s: float = 5.0) -> int:
    """Terminate, then kill, until none is left; returns how many there were."""
    count = 0
    deadline = time.monotonic() + grace_s
    while processes := of_stack(stack_id, port):
        count = max(count, len(processes))
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if time.monotonic() < deadline:
                    process.terminate()
                else:
                    process.kill()
        psutil.wait_procs(processes, timeout=0.5)
        if time.monotonic() > deadline + 10:
            break
    return count


def resident_bytes(stack_id: str, port: int) -> int:
    """Resident memory of the whole stack: the sum over its processes, shared pages counted in each."""
    total = 0
    for process in of_stack(stack_id, port):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
