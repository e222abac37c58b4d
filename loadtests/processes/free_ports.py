"""Ports for servers that somebody else starts later: nobody takes them in between.

A port of the kernel's choice is free only while it is bound: afterwards any outgoing connection may get it,
and so may the next one who asks. Those here lie below the ports of outgoing connections, and a lock that
lasts as long as this process keeps other tests and benchmarks away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import BinaryIO

# Linux gives outgoing connections 32768 and more.
FIRST, LAST = 21_000, 32_767
# A step without a common factor with their number, so that processes begin far from each other.
_STEP = 1009

_locks: dict[int, BinaryIO] = {}


def free_port() -> int:
    """A TCP port that nobody listens on, and that nobody else gets while this process runs.

    Raises:
        OSError: all of them are taken.
    """
    count = LAST - FIRST + 1
    for turn in range(count):
        port = FIRST + (os.getpid() * _STEP + turn) % count
        if port not in _locks and _lock(port) and _is_free(port):
            return port
    raise OSError(f"no port from {FIRST} to {LAST} is free")


def _lock(port: int) -> bool:
    folder = Path(tempfile.gettempdir()) / f"comptoir-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = (folder / str(port)).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    _locks[port] = file
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        # What was closed a moment ago is free; what somebody listens on is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("", port))
        return True
    return False
