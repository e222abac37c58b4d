"""What the kernel knows of the other end of a connection: whether it is there, and what it has (`tcp(7)`).

`TCP_USER_TIMEOUT` would not do: it also ends connections to a machine that is there and acknowledges
everything, but whose process does not read, so that its window is zero.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

# A machine that has lost its power or its network closes no connection. Its kernel would answer within
# milliseconds whatever its processes do: after so long without an answer it counts as gone.
PEER_TIMEOUT_S = 5
# When nothing has come for so long, the kernel asks, and again every second.
PROBE_AFTER_S = 2
# An answer to what has just been sent may be on its way.
_ON_ITS_WAY_MS = 500
# One packet may be lost.
_UNANSWERED = 2
# The beginning of `struct tcp_info` (linux/tcp.h), up to `tcpi_notsent_bytes` (Linux 4.6).
_INFO = struct.Struct("=8B24I4Q3I")


@dataclass(frozen=True, slots=True)
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


def has_vanished(info: TcpInfo, waited_s: float) -> bool:
    """Whether the other end has answered nothing, neither data nor probes, for `PEER_TIMEOUT_S`.

    One that acknowledges with a closed window is there: its process does not read just now.

    Args:
        waited_s: how long ago the request was sent: before, there was nothing to answer.
    """
    # A look comes once a second, a little early or late.
    timeout_s = PEER_TIMEOUT_S - 0.1
    if info.is_delivered or waited_s < timeout_s or info.last_ack_ms < 1000 * timeout_s:
        return False
    if info.probes >= _UNANSWERED:
        return True
    # Where a window was open and is closed, retransmissions serve as probes, ever more seldom.
    return info.retransmits >= _UNANSWERED and info.last_ack_ms > info.last_sent_ms > _ON_ITS_WAY_MS


def tcp_info(sock: Any) -> TcpInfo | None:
    """What the kernel knows; None where it does not say (not TCP, closed)."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except (OSError, AttributeError):
        return None
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


def probe_when_silent(sock: Any) -> None:
    """Let the kernel end a connection whose other end has vanished, while nothing is under way on it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PEER_TIMEOUT_S - PROBE_AFTER_S)
