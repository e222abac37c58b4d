"""Whether another gateway of this machine takes new connections on the same port.

Gateways of one machine share their port (SO_REUSEPORT), and the kernel hands each new connection to any that
listens. One that leaves must know whether it is the last: only then do balancers have to be told. Each that
takes connections holds an abstract Unix socket whose name says the port: it belongs to the same network
namespace as the port, and is gone with its process, however that ends.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

# Abstract names stand in it with an @ in front: https://man7.org/linux/man-pages/man7/unix.7.html.
LIST = Path("/proc/net/unix")


class Neighbours:
    """The gateways at one port of this machine."""

    def __init__(self, host: str, port: int) -> None:
        self._prefix = f"comptoir-gateway/{host}/{port}/"
        self._own = f"{self._prefix}{os.getpid()}-{id(self):x}"
        self._mark: socket.socket | None = None

    def join(self) -> None:
        """Join: this gateway takes new connections from now on."""
        if self._mark is None:
            self._mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._mark.bind("\0" + self._own)

    def leave(self) -> None:
        """Leave: it soon takes none; others that leave at the same time no longer count on it."""
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    def are_there(self) -> bool:
        """Whether another one takes new connections."""
        try:
            lines = LIST.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        names = {line.rpartition(" @")[2] for line in lines if f" @{self._prefix}" in line}
        return bool(names - {self._own})
