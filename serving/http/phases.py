"""The phases of a client's connection, and the transitions between them.

           the PROXY header, where one is due
    PROXY ─────────────────────────────────▶ IDLE ◀──────────────────────────────────┐
      │                                      │  │                                    │
      │                      the first bytes │  │ rested too long, evicted,          │ answer and body are
      │                                      ▼  │ or the listener closes             │ whole, and neither side
      │ malformed, or too late             HEAD ┼──────────────────────────┐         │ wants to close; what
      │                                      │  │ evicted                  │         │ came is the next head
      │                       the head's end │  │                          │         │
      │                                      ▼  │                          │         │
      │                                     BUSY ┼───────────────────────────────────┘
      │                                      │   │ the client has gone, or    │
      │  malformed, too large or too late,   │   │ takes nothing of its answer│
      │  or the connection's last answer     ▼   │                            ▼
      └─────────────────────────────────▶ LINGER ┴──────────────────────▶ CLOSED
                                                  end of input, or too late

PROXY, IDLE, HEAD, LINGER and a body that is not whole have one deadline at a time. BUSY with a whole body has
none: the application's own hold. What is ready for the client and is not taken has the stall limit, always.
`check` looks at both a few times a second, so that nothing has to be armed and disarmed for each request.

In BUSY nothing is parsed but the request's own body: what a client sends ahead stays bytes until its turn,
and when that is too much, no more is read. In LINGER what comes is thrown away: to close with unread bytes
makes the kernel send a reset, which can take the answer from the client (RFC 9112, 9.6).

The end of input in BUSY: a client that half-closes waits for its answer, one that has closed does not, and
the two look alike. So something that means nothing is sent (`Exchange.probe`). A client that has closed
answers it with a reset, and `check` sees that. HTTP/1.0 has nothing of the kind before an answer begins;
there a client gets HALF_CLOSE_GRACE_S.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """Drawn at the top of this file."""

    PROXY = enum.auto()
    IDLE = enum.auto()
    HEAD = enum.auto()
    BUSY = enum.auto()
    LINGER = enum.auto()
    CLOSED = enum.auto()
