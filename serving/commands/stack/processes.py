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

from serving.errors import StackError

STACK_VARIABLE = "COMPTOIR_STACK"
# The longest path of a Unix socket that Linux takes, and Ray's longest below the folder of a stack.
SOCKET_BYTES = 107
_RAYS_LONGEST = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead"


def session_root(port: int) -> Path:
    """The folder of Ray's sessions for the stack on this port.

    Ray's sockets live under it and their paths may have 107 bytes: a deep cache folder would not do, nor
    would a deep TMPDIR.
    """
    name = _session_name(port)
    return _short_folder(SOCKET_BYTES - len(_RAYS_LONGEST) - len(name) - 1) / name


def _session_name(port: int) -> str:
    return f"comptoir-{os.getuid()}-{port}"


def _short_folder(most_bytes: int) -> Path:
    wanted = tempfile.gettempdir()
    if len(os.fsencode(wanted)) <= most_bytes:
        return Path(wanted)
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    # Logs grow there, too: a disk before what is kept in memory.
    for folder in ("/tmp", "/var/tmp", runtime):  # noqa: S108 - what is made there is for us alone
        if len(os.fsencode(folder)) <= most_bytes and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise StackError(
        f"Ray's sockets need a short path, and TMPDIR ({wanted}) has more than {most_bytes} "
        "characters: set TMPDIR to a shorter folder, such as /tmp"
    )


def of_stack(stack_id: str, port: int) -> list[psutil.Process]:
    """Living processes of the stack, this one left out."""
    # Wherever it lies: TMPDIR need not be here what it was where the stack was started.
    name = f"/{_session_name(port)}/"
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(STACK_VARIABLE) == stack_id or _has_open(process.pid, name):
                found.append(process)
    return found


def _has_open(pid: int, name: str) -> bool:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if name in os.readlink(f"/proc/{pid}/fd/{number}"):
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
