"""Forwards a replica's answer to the client, in callbacks and unparsed: a stream event by event.

Nothing here waits for the client: a slot is free when the replica has said everything, and a client that does
not read loses its answer.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any

from starlette.types import Send

from serving.errors import EngineFailedError
from serving.gateway.body import ClientLeftError
from serving.gateway.connection_errors import UnreadError
from serving.gateway.engine_errors import stream_error_at
from serving.gateway.render import Dialect, Headers, error_event
from serving.gateway.upstream import PAUSE_TIMEOUT_S, Answer
from serving.http_protocol import ClientConnection
from serving.replica_protocol import USAGE_MARK, take_usage

# The longest is the last one of OpenAI's Responses, which repeats the whole output.
MAX_EVENT_BYTES = 4 * 1024 * 1024
# An answer that is not a stream leaves with its length, and the slot is free before it is sent; one that is
# longer than this passes through piece by piece.
MAX_HELD_BYTES = 1024 * 1024


class Ending(enum.Enum):
    """The end of an answer: proper; by a fault of the replica; because its client did not read it."""

    COMPLETE = enum.auto()
    BROKEN = enum.auto()
    UNREAD = enum.auto()


class Passing:
    """An answer on its way from a replica to a client, byte for byte; a `Receiver`."""

    __slots__ = ("_answer", "_client", "done")

    def __init__(self, answer: Answer, client: ClientConnection) -> None:
        self._answer = answer
        self._client = client
        self.done: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def receive(self, data: bytes) -> None:
        """Send what has arrived."""
        if data:
            self._client.write(data)
            if self._client.is_slow:
                self._answer.pause()

    def end(self, error: Exception | None) -> None:
        """The replica has ended the answer, properly or not."""
        if error is None:
            self._finish(Ending.COMPLETE)
        else:
            self._finish(Ending.UNREAD if isinstance(error, UnreadError) else Ending.BROKEN)

    def _finish(self, ending: Ending) -> None:
        if not self.done.done():
            self.done.set_result(ending)


class Relay(Passing):
    """A stream of events on its way from a replica to a client.

    What has arrived together leaves together: a client that is behind gets several events in one write.
    """

    __slots__ = ("_rest", "_rest_bytes")

    def __init__(self, answer: Answer, client: ClientConnection) -> None:
        super().__init__(answer, client)
        # The beginning of an event; in pieces, so that a long one is not copied for each of them.
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def receive(self, data: bytes) -> None:
        """Send the complete events of what has arrived so far; an error event ends the stream."""
        # Whole events only: one that a packet's end cut in two could hide an error.
        if self._rest or not data.endswith(b"\n\n"):
            data = self._whole_events(data)
            if not data:
                return
        failed_at = stream_error_at(data)
        if failed_at >= 0:
            data = data[:failed_at]
        if USAGE_MARK in data:
            data, self._answer.usage = take_usage(data)
        super().receive(data)
        if failed_at >= 0:
            self._break()

    def end(self, error: Exception | None) -> None:
        """The replica has ended the stream, properly or not."""
        if error is None and self._rest:
            self._finish(Ending.BROKEN)
        else:
            super().end(error)

    def _whole_events(self, data: bytes) -> bytes:
        """The complete events of the kept and the new bytes; the rest is kept."""
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            # The two line breaks may have come apart.
            apart = data[:1] == b"\n" and bool(self._rest) and self._rest[-1].endswith(b"\n")
            end = int(apart)
        whole, rest = data[:end], data[end:]
        if whole:
            whole = b"".join((*self._rest, whole))
            self._rest, self._rest_bytes = [], 0
        if rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
            if self._rest_bytes > MAX_EVENT_BYTES:
                self._break()
        return whole

    def _break(self) -> None:
        self._answer.close()
        self._finish(Ending.BROKEN)


async def stream_answer(
    answer: Answer, headers: Headers | None, client: ClientConnection, send: Send
) -> Ending:
    """Forward a stream's events; when the slot is free, `end_stream` ends it.

    Cancel it when the client leaves; closing the answer is the caller's.

    Args:
        headers: None when the client has them already.
    """
    if headers is not None:
        await _begin(200, headers, client, send)
    return await _relay(Relay(answer, client), answer, client)


async def pass_answer(
    answer: Answer, headers: Headers, client: ClientConnection, send: Send
) -> Ending:
    """Forward an answer that is too long to be held; when the slot is free, `end_passed` ends it."""
    await _begin(answer.status, headers, client, send)
    return await _relay(Passing(answer, client), answer, client)


async def end_stream(
    ending: Ending,
    dialect: Dialect,
    client: ClientConnection,
    send: Send,
) -> None:
    """End a stream whose events are sent; if it is not complete, with an error event."""
    event = b"" if ending is Ending.COMPLETE else error_event(_incomplete(), dialect)
    await send_within(client, send, {"type": "http.response.body", "body": event})


async def end_passed(ending: Ending, client: ClientConnection, send: Send) -> None:
    """End an answer that was passed on; one that is not complete is left so, which ends the connection."""
    if ending is Ending.COMPLETE:
        await send_within(client, send, {"type": "http.response.body", "body": b""})


async def _begin(status: int, headers: Headers, client: ClientConnection, send: Send) -> None:
    await send_within(
        client, send, {"type": "http.response.start", "status": status, "headers": headers}
    )


async def send_within(client: ClientConnection, send: Send, message: dict[str, Any]) -> None:
    """ASGI's `send`, which waits for a slow client: not for ever."""
    if not client.is_slow:
        await send(message)
        return
    try:
        async with asyncio.timeout(PAUSE_TIMEOUT_S):
            await send(message)
    except TimeoutError:
        raise ClientLeftError from None


async def _relay(passing: Passing, answer: Answer, client: ClientConnection) -> Ending:
    client.on_writable = answer.resume
    try:
        passing.receive(answer.first)
        if not passing.done.done():
            answer.pipe(passing)
        return await passing.done
    finally:
        client.on_writable = None


def _incomplete() -> EngineFailedError:
    return EngineFailedError("the engine stopped while it was answering; the answer is incomplete")
