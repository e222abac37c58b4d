"""One kept-alive HTTP/1.1 connection from the gateway to a replica: one request at a time.

An answer's body arrives in callbacks and leaves in callbacks: no task wakes up per piece.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Protocol

import httptools

from serving.replica_protocol import USAGE_HEADER, Usage

_USAGE = USAGE_HEADER.encode()
# What the kernel says when the machine at the other end, or the way to it, has gone.
_UNREACHABLE = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN}
)


class Receiver(Protocol):
    """Takes the pieces of a body as they arrive."""

    def receive(self, data: bytes) -> None:
        """Some more of the body: everything that had arrived."""

    def end(self, error: Exception | None) -> None:
        """The body is complete, or `error` says why it never will be. Called once, last."""


class BrokenError(Exception):
    """The connection ended before the answer did."""


class ClosedError(BrokenError):
    """The other end has closed it: its process has ended, or is about to."""


class VanishedError(BrokenError):
    """The other machine, or the way to it, has gone: nothing the request did, and nobody closed anything."""


class SilentError(Exception):
    """Nothing has arrived for as long as one may wait."""


class ReplicaConnection(asyncio.Protocol):
    """Sends a request, hands out the answer; can then be used again if `is_reusable`.

    Args:
        silence_s: how long a replica may send nothing while it owes an answer.
        gone: called when the connection is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        silence_s: float,
        gone: Callable[[ReplicaConnection], None],
    ) -> None:
        self._loop = loop
        self._silence_s = silence_s
        self._gone = gone
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self.idle_since = 0.0
        self._begin_answer()
        self.is_complete = True

    def _begin_answer(self) -> None:
        self.status = 0
        self.content_type = ""
        self.usage: Usage | None = None
        self.is_complete = False
        self._pieces: list[bytes] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wants_all = False
        self._is_paused = False
        self._receiver: Receiver | None = None

    # ---- for the pool and the answer ---------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer is complete and the replica keeps the connection."""
        return self.is_complete and self._error is None and self.is_open

    def send(self, request: bytes) -> None:
        """Send a request; a new answer begins."""
        if self._transport is None or not self.is_complete:
            raise RuntimeError("the connection is not free")
        self._begin_answer()
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(self._silence_s, self._listen_for_silence)
        self._transport.write(request)

    async def begun(self) -> None:
        """Wait until the head and some of the body have arrived, or all of an answer without a body.

        Raises:
            BrokenError, SilentError: it will not come.
        """
        if not self._pieces and not self.is_complete and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error

    async def whole(self) -> bytes:
        """The body that has not been taken yet, when it is complete.

        Raises:
            BrokenError, SilentError: it will not be.
        """
        self._wants_all = True
        if not self.is_complete and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        return self.take()

    def take(self) -> bytes:
        """What has arrived of the body since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pipe(self, receiver: Receiver) -> None:
        """Give `receiver` everything from now on, as it arrives."""
        self._receiver = receiver
        self._deliver()

    def pause(self) -> None:
        """Take in no more for now: the client reads more slowly than the engine writes."""
        if self._transport is not None and self.is_open:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take in more again."""
        if self._transport is not None and self.is_open:
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    def close(self) -> None:
        """Close at once. If an answer is open, the engine aborts its request."""
        self._stop_timer()
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.is_complete:
            # A replica that speaks unasked is out of step: what comes next could be anybody's answer.
            self.close()
            return
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._error = BrokenError("not HTTP")
        self._deliver()
        if self._error is not None:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if not self.is_complete and self._error is None:
            self._error = _ending(exc)
            self._deliver()
        self._gone(self)

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.is_complete:
            self._error = BrokenError("two answers to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name == _USAGE:
            self.usage = Usage.parse(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._error is None:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True
        self._stop_timer()
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()

    # ---- inside ------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        ended = self.is_complete or self._error is not None
        receiver = self._receiver
        if receiver is not None:
            if self._pieces:
                receiver.receive(self.take())
            if ended and self._receiver is receiver:
                self._receiver = None
                receiver.end(self._error)
        elif self._waiter is not None and (ended or (self._pieces and not self._wants_all)):
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _listen_for_silence(self) -> None:
        # While nobody listens, a replica is not silent.
        heard_at = self._loop.time() if self._is_paused else self._heard_at
        left_s = heard_at + self._silence_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._listen_for_silence)
            return
        self._error = SilentError(f"nothing for {self._silence_s:g} s")
        self._deliver()
        self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def is_unreachable(error: BaseException | None) -> bool:
    """Whether a machine gives no sign of life, rather than a process on it."""
    return isinstance(error, TimeoutError) or (
        isinstance(error, OSError) and error.errno in _UNREACHABLE
    )


def _ending(error: Exception | None) -> BrokenError:
    kind = VanishedError if is_unreachable(error) else ClosedError
    return kind("closed" if error is None else type(error).__name__)
