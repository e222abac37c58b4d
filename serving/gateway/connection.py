"""One kept-alive HTTP/1.1 connection from the gateway to a replica: one request at a time.

An answer's body arrives in callbacks and leaves in callbacks: no task wakes up per piece.

    IDLE ──send──▶ HEAD ──head──▶ BODY ──end──▶ ENDED ──recycle──▶ IDLE
                                 │    ▲           ▲
                            pause│    │resume     │end
                                 ▼    │           │
                                 PAUSED ──────────┘

    from each of them ──close, failure, lost──▶ CLOSED

A connection is IDLE again only when `recycle` has found it clean: the last request is sent, its answer was
complete, reading goes on, no timer runs, nobody listens. Any other connection that is returned is closed,
so a forgotten case costs a connection and not the next request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import httptools

from serving.gateway.answer_reader import State
from serving.gateway.answer_watch import LONGEST_S, LOOK_EVERY_S, AnswerWatch
from serving.gateway.connection_errors import (
    BrokenError,
    ClosedError,
    Receiver,
    VanishedError,
)
from serving.tcp import reset

_IDLE, _HEAD, _BODY = State.IDLE, State.HEAD, State.BODY
_PAUSED, _ENDED, _CLOSED = State.PAUSED, State.ENDED, State.CLOSED
# What arrives before anybody takes it, and the head with all that a replica says before its answer (1xx).
MAX_HELD_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024


class ReplicaConnection(AnswerWatch, asyncio.Protocol):
    """Sends a request and hands out the answer; can be used again if `recycle` says so.

    Args:
        silence_s: how long a replica may send nothing while it owes an answer.
        gone: called when the connection is closed.
        pause_s: how long the gateway may leave an answer unread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        silence_s: float,
        gone: Callable[[ReplicaConnection], None],
        pause_s: float = math.inf,
    ) -> None:
        self._loop = loop
        self._silence_s = silence_s
        self._pause_s = pause_s
        self._gone = gone
        super().__init__()
        self.idle_since = 0.0
        self._requests_bytes = 0
        self._forget()

    def _forget(self) -> None:
        """Reset the state of a request and its answer."""
        self._forget_answer()
        self._wanted_bytes = MAX_HELD_BYTES
        self._head_bytes = 0
        self._is_delivered = False
        self._is_unheard = True
        self._sent_at = self._heard_at = self._paused_at = 0.0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wants_all = False
        self._receiver: Receiver | None = None

    # ---- for the pool and the answer ---------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return (
            self.state is _IDLE and self._transport is not None and not self._transport.is_closing()
        )

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer has arrived."""
        return self.state is _ENDED

    @property
    def is_reused(self) -> bool:
        """Whether it has carried a request before."""
        return self._requests_bytes > 0

    def recycle(self) -> bool:
        """Prepare for the next request; close if anything of the last one is left."""
        transport = self._transport
        if (
            self.state is _ENDED
            and not self._is_last
            and self._error is None
            and self._receiver is None
            and self._waiter is None
            and self._timer is None
            and transport is not None
            and not transport.is_closing()
            # An answer may come before its request was sent: the rest of that would precede the next one.
            and not transport.get_write_buffer_size()
        ):
            self._forget()
            self.state = _IDLE
            return True
        self.close()
        return False

    @property
    def has_vanished(self) -> bool:
        """Whether the other machine, or the network to it, was lost during the last answer."""
        return isinstance(self._error, VanishedError)

    def send(self, request: bytes) -> None:
        """Send a request; a new answer begins."""
        if self._transport is None or self.state is not _IDLE:
            raise RuntimeError("the connection is not free")
        self.state = _HEAD
        self._requests_bytes += len(request)
        self._sent_at = self._heard_at = self._loop.time()
        self._look_in(min(self._silence_s, LOOK_EVERY_S))
        self._transport.write(request)

    async def begun(self) -> None:
        """Wait until the head and some of the body have arrived, or all of an answer without a body.

        Raises:
            BrokenError, SilentError: the answer will not come.
        """
        if not self._pieces and self.state is not _ENDED and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error

    async def fetch(self, limit_bytes: int) -> bytes:
        """The rest of the body, once it is complete or this long; see `is_complete`.

        Raises:
            BrokenError, SilentError, UnreadError: the body will not be complete.
        """
        self._wants_all = True
        self._wanted_bytes = limit_bytes
        if self.state is not _ENDED and self._held_bytes < limit_bytes and self._error is None:
            self.resume()
            await self._wait()
        if self._error is not None:
            raise self._error
        return self.take()

    def take(self) -> bytes:
        """The part of the body that has arrived since the last call."""
        pieces, self._pieces = self._pieces, []
        self._held_bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pipe(self, receiver: Receiver) -> None:
        """Give `receiver` everything from now on, as it arrives."""
        self._receiver = receiver
        self.resume()
        self._deliver()

    def pause(self) -> None:
        """Stop reading for now: the client reads more slowly than the engine writes."""
        if self.state is _BODY and self._transport is not None:
            self.state = _PAUSED
            self._paused_at = self._loop.time()
            self._transport.pause_reading()
            self._look_in(min(self._pause_s, LONGEST_S))

    def resume(self) -> None:
        """Read again."""
        if self.state is _PAUSED and self._transport is not None:
            self.state = _BODY
            self._heard_at = self._loop.time()
            self._is_unheard = True
            self._transport.resume_reading()
            self._look_in(min(self._silence_s, LONGEST_S))

    def close(self) -> None:
        """Close at once, silently. If an answer is open, the engine aborts its request."""
        owes = self.state in (_HEAD, _BODY, _PAUSED)
        self._stop_timer()
        self._receiver = None
        self.state = _CLOSED
        if self._error is None:
            self._error = ClosedError("closed here")
        self._wake()
        if self._transport is None:
            return
        if owes:
            # After an end of input a replica would have to find out whether somebody still listens.
            reset(self._transport)
        else:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """Close at once, and pass the reason to the waiter for the answer."""
        if self.state in (_HEAD, _BODY, _PAUSED) and self._error is None:
            self._error = error
            self._deliver()
        self.close()

    # ---- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is _IDLE or state is _ENDED or state is _CLOSED:
            self._speaks_unasked()
            return
        self._heard_at = self._loop.time()
        self._is_unheard = False
        error: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What comes after a complete answer does not change it; nothing comes after that.
            error = BrokenError("not HTTP")
            self._is_last = True
        if self.state is _HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                error = BrokenError("the head is too long")
        if error is not None and self.state is not _ENDED:
            self.fail(error)
            return
        self._deliver()
        if error is not None:
            self._speaks_unasked()
        if self._held_bytes >= self._wanted_bytes and self._receiver is None:
            self.pause()

    def connection_lost(self, exc: Exception | None) -> None:
        # A complete answer outlives its connection until it is taken.
        if self.state is not _ENDED and self.state is not _CLOSED:
            self.fail(self._ending(exc))
        self._gone(self)

    # ---- inside ------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        ended = self.state is _ENDED or self._error is not None
        receiver = self._receiver
        if receiver is not None:
            if self._pieces:
                receiver.receive(self.take())
            if ended and self._receiver is receiver:
                self._receiver = None
                receiver.end(self._error)
        elif ended or self._has_enough():
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _has_enough(self) -> bool:
        return self._held_bytes >= self._wanted_bytes if self._wants_all else bool(self._pieces)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _speaks_unasked(self) -> None:
        # Such a replica is out of step: what comes next could be anybody's answer.
        if self.state is _ENDED:
            self._is_last = True
            if self._transport is not None:
                self._transport.abort()
        else:
            self.close()
