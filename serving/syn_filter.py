"""Makes a listening socket take no new connections while it goes on with those that have begun.

Closing one of several sockets that share a port resets what the kernel has given to it and nobody has
accepted, and every handshake that is still under way: the client's last packet finds nobody. So the socket
first drops the packets that open connections. A client repeats one after a second; by then the socket is
closed, and the kernel gives the connection to another of the port. Linux 5.14 and later can hand all of that
over themselves (net.ipv4.tcp_migrate_req), which costs nobody that second, but not by default.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from pathlib import Path

MIGRATES = Path("/proc/sys/net/ipv4/tcp_migrate_req")
# From asm-generic/socket.h; Python has no name for it.
SO_ATTACH_FILTER = 26
# Classic BPF over the TCP header (linux/filter.h): code, jump if true, jump if false, operand.
# Of SYN and ACK in byte 13 only SYN: drop the packet. Anything else: keep all of it.
_PROGRAM = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def take_no_new(sock: socket.socket) -> None:
    """From now on nobody can begin a connection to this socket; accepted ones inherit that and don't mind.

    Raises:
        OSError: the kernel has no such filters.
    """
    code = b"".join(struct.pack("HBBI", *one) for one in _PROGRAM)
    held = ctypes.create_string_buffer(code)
    sock.setsockopt(
        socket.SOL_SOCKET,
        SO_ATTACH_FILTER,
        struct.pack("HP", len(_PROGRAM), ctypes.addressof(held)),
    )


def kernel_migrates() -> bool:
    """Whether the kernel hands connections of a socket that closes to another of the port."""
    try:
        return MIGRATES.read_text().strip() == "1"
    except OSError:
        return False
