"""Whether the machine of a replica is still there.

`TCP_USER_TIMEOUT` would not do: it also ends connections to a machine that is there and acknowledges
everything, but whose process does not read, so that its window is zero.
"""

from __future__ import annotations

from typing import Any

from serving.tcp import TcpInfo, probe_when_silent

# A machine that has lost its power or its network closes no connection. Its kernel would answer within
# milliseconds whatever its processes do: after so long without an answer it counts as gone.
PEER_TIMEOUT_S = 5
# When nothing has come for so long, the kernel asks, and again every second.
PROBE_AFTER_S = 2
# An answer to what has just been sent may be on its way.
_ON_ITS_WAY_MS = 500
# One packet may be lost.
_UNANSWERED = 2


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


def watch(sock: Any) -> None:
    """Let the kernel end a connection to a machine that has vanished, while nothing is under way on it."""
    probe_when_silent(sock, PROBE_AFTER_S, 1, PEER_TIMEOUT_S - PROBE_AFTER_S)
