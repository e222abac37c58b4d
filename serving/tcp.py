"""Linux's view of a TCP connection, and options set on one (`tcp(7)`)."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from serving.records import record

# The beginning of `struct tcp_info` (linux/tcp.h), up to `tcpi_notsent_bytes` (Linux 4.6).
_INFO = struct.Struct("=8B24I4Q3I")
# The states of a connection (Linux, include/net/tcp_states.h).
_CLOSE, _CLOSE_WAIT = 7, 8


@record
class TcpInfo:
    """A connection as the kernel sees it.

    Attributes:
        retransmits: how often in a row something was sent again without an answer.
        probes: how often in a row the other end was asked for a window without an answer.
        unacked: segments that are sent and not acknowledged.
        unsent_bytes: what is not sent, because the window is closed.
        acked_bytes: what the other end has acknowledged, since the connection began.
    """

    retransmits: int
    probes: int
    unacked: int
    unsent_bytes: int
    acked_bytes: int
    last_sent_ms: int
    last_ack_ms: int

    @property
    def is_delivered(self) -> bool:
        """Whether the other end's kernel has everything."""
        return not self.unacked and not self.unsent_bytes


def tcp_info(sock: Any) -> TcpInfo | None:
    """The kernel's figures; None where it has none (not TCP, closed)."""
    raw = _read(sock, _INFO.size)
    if len(raw) < _INFO.size:
        return None
    found = _INFO.unpack(raw)
    return TcpInfo(
        retransmits=found[2],
        probes=found[3],
        unacked=found[12],
        unsent_bytes=found[38],
        # The opening of the connection counts as one byte.
        acked_bytes=found[34] - 1,
        last_sent_ms=found[17],
        last_ack_ms=found[20],
    )


def is_reset(sock: Any) -> bool:
    """Whether the other end has gone for good; asyncio says so only to those who read or write."""
    return _read(sock, 1) == bytes((_CLOSE,))


def has_ended_input(sock: Any) -> bool:
    """Whether the other end will send nothing more, though not all of what it sent may have been read."""
    return _read(sock, 1) == bytes((_CLOSE_WAIT,))


def probe_when_silent(sock: Any, after_s: int, every_s: int, probes: int) -> None:
    """Let the kernel end a connection whose other end has vanished, while nothing is under way on it.

    Args:
        after_s: when nothing has come for so long, the kernel asks, and again every `every_s`.
        probes: after so many without an answer it ends the connection.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, after_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)


def reset(transport: asyncio.Transport) -> None:
    """Close at once, and have the kernel send a reset instead of an end and of what is left."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _read(sock: Any, size: int) -> bytes:
    """The beginning of `struct tcp_info`; empty where the kernel does not say."""
    try:
        raw: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except (OSError, AttributeError):
        return b""
    return raw
