"""Watches on one connection: the pace of a body, and whether the client reads its answer."""

from __future__ import annotations

import asyncio
import math

from serving.tcp import tcp_info

# A client that takes less than this within the stall limit takes nothing.
STALL_BYTES = 16 * 1024
# The rate of a body is looked at over so long.
RATE_WINDOW_S = 10.0


class BodyWatch:
    """The time limits of a request's body, in total and for its next piece."""

    __slots__ = ("_last_s", "_least_bytes", "_mark")

    def __init__(self, now_s: float, limit_s: float, least_bytes_per_s: int) -> None:
        self._last_s = now_s + limit_s
        self._least_bytes = least_bytes_per_s * RATE_WINDOW_S
        self._mark = 0

    def next_look_s(self, now_s: float) -> float:
        """The time at which to ask `is_late` again."""
        return min(self._last_s, now_s + RATE_WINDOW_S)

    def is_late(self, now_s: float, received_bytes: int, *, is_paused: bool) -> bool:
        """Whether too little has arrived since the last check, or the time is over.

        Args:
            is_paused: whether it was the server that read no more.
        """
        came, self._mark = received_bytes - self._mark, received_bytes
        return now_s >= self._last_s or (came < self._least_bytes and not is_paused)


class StallWatch:
    """Whether a client reads the data that is ready for it.

    Acknowledged bytes count, not the rest in the buffer, because an answer may still be growing.
    """

    __slots__ = ("_limit_s", "_mark", "_transport", "_until_s")

    def __init__(self, transport: asyncio.Transport, limit_s: float) -> None:
        self._transport = transport
        self._limit_s = limit_s
        self._mark = 0
        self._until_s = math.inf

    def begin(self, now_s: float) -> None:
        """Start the watch: data is ready and has not been read."""
        self._mark = _acknowledged_bytes(self._transport)
        self._until_s = now_s + self._limit_s

    def end(self) -> None:
        """Stop the watch: enough has been read."""
        self._until_s = math.inf

    def has_stalled(self, now_s: float) -> bool:
        """Whether the client has read next to nothing for the whole limit."""
        if self._until_s == math.inf:
            return False
        if not self._transport.get_write_buffer_size():
            self._until_s = math.inf
        elif now_s >= self._until_s:
            if _acknowledged_bytes(self._transport) - self._mark < STALL_BYTES:
                return True
            self.begin(now_s)
        return False


def _acknowledged_bytes(transport: asyncio.Transport) -> int:
    info = tcp_info(transport.get_extra_info("socket"))
    return -transport.get_write_buffer_size() if info is None else info.acked_bytes
