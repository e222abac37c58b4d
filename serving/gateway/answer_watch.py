"""Whether an answer that a replica owes will still come: by time, and by the kernel's view of its machine."""

from __future__ import annotations

import asyncio

from serving.gateway.answer_reader import AnswerReader, State
from serving.gateway.connection_errors import (
    ClosedError,
    SilentError,
    UnreadError,
    VanishedError,
    is_unreachable,
)
from serving.gateway.peer import has_vanished
from serving.tcp import tcp_info

# While a request is not delivered, the kernel is asked so often whether the other end is there.
LOOK_EVERY_S = 1.0
LONGEST_S = 3600.0


class AnswerWatch(AnswerReader):
    """The part of a connection that knows how long an answer may take, and what its absence means.

    `_is_unheard`: nothing has come since the request, or since reading went on. `_is_delivered`: the other
    end's kernel has all of the request.
    """

    _loop: asyncio.AbstractEventLoop
    _silence_s: float
    _pause_s: float
    _requests_bytes: int
    _sent_at: float
    _heard_at: float
    _paused_at: float
    _is_unheard: bool
    _is_delivered: bool

    def fail(self, error: Exception) -> None:
        """Close at once, and pass the reason to the waiter for the answer."""
        raise NotImplementedError

    def _ending(self, exc: Exception | None) -> Exception:
        """The error for a connection that is lost while an answer is owed."""
        reason = "closed" if exc is None else type(exc).__name__
        if is_unreachable(exc):
            return VanishedError(reason)
        if self.state is State.PAUSED or (self._paused_at and self._is_unheard):
            # The other end may have tired of waiting for us to read.
            return UnreadError(reason)
        return ClosedError(reason, taken=not self._is_unheard or self._is_taken())

    def _is_taken(self) -> bool:
        info = tcp_info(self._socket)
        return info is None or info.acked_bytes >= self._requests_bytes

    @property
    def _socket(self) -> object:
        return self._transport.get_extra_info("socket") if self._transport is not None else None

    # ---- time --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Check whether the answer will still come; called while one is owed."""
        self._timer = None
        now = self._loop.time()
        if self.state is State.PAUSED:
            # While nobody listens, a replica is not silent.
            since, limit_s = self._paused_at, self._pause_s
        else:
            since, limit_s = self._heard_at, self._silence_s
        left_s = min(since + limit_s - now, LONGEST_S)
        if left_s <= 0:
            said = f"for {limit_s:g} s"
            paused = self.state is State.PAUSED
            self.fail(UnreadError(f"unread {said}") if paused else SilentError(f"nothing {said}"))
            return
        if not self._is_delivered:
            info = tcp_info(self._socket)
            self._is_delivered = info is None or info.is_delivered
            if info is not None and has_vanished(info, now - self._sent_at):
                self.fail(VanishedError("no sign of life"))
                return
            if not self._is_delivered:
                left_s = min(left_s, LOOK_EVERY_S)
        self._look_in(left_s)

    def _look_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._look)
