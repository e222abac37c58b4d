"""Forwards a replica's stream to the client, in callbacks, event by event and unparsed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.types import Send

from serving.errors import ComptoirError, EngineFailedError
from serving.gateway.engine_errors import stream_error_at
from serving.gateway.upstream import Answer
from serving.http_protocol import ClientConnection
from serving.replica_protocol import USAGE_MARK, take_usage


class Relay:
    """One stream on its way from a replica to a client; a `Receiver` of the replica's connection.

    What has arrived together leaves together: a client that is behind gets several events in one write.
    """

    __slots__ = ("_answer", "_client", "_done", "_has_failed", "_rest")

    def __init__(self, answer: Answer, client: ClientConnection) -> None:
        self._answer = answer
        self._client = client
        self._rest = b""
        self._has_failed = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> bool:
        """Forward everything; whether the stream came to its own end.

        Cancel it when the client leaves; closing the answer is the caller's.
        """
        self._client.on_writable = self._answer.resume
        try:
            self.receive(self._answer.first)
            if not self._has_failed:
                self._answer.pipe(self)
            await self._done
        finally:
            self._client.on_writable = None
        return not self._has_failed

    def receive(self, data: bytes) -> None:
        """Send the complete events of what has arrived so far; an error event ends the stream."""
        if self._rest:
            data = self._rest + data
        # Whole events only: one that a packet's end cut in two could hide an error.
        if data.endswith(b"\n\n"):
            self._rest = b""
        else:
            end = data.rfind(b"\n\n") + 2
            if end < 2:
                self._rest = data
                return
            data, self._rest = data[:end], data[end:]
        failed_at = stream_error_at(data)
        if failed_at >= 0:
            data = data[:failed_at]
        if USAGE_MARK in data:
            data, self._answer.usage = take_usage(data)
        if data:
            self._client.write(data)
            if self._client.is_slow:
                self._answer.pause()
        if failed_at >= 0:
            self._answer.close()
            self._finish(failed=True)

    def end(self, error: Exception | None) -> None:
        """The replica has ended the stream, properly or not."""
        self._finish(failed=error is not None or bool(self._rest))

    def _finish(self, *, failed: bool) -> None:
        if not self._done.done():
            self._has_failed = failed
            self._done.set_result(None)


async def stream_answer(
    answer: Answer,
    headers: dict[str, str] | None,
    render_error: Callable[[ComptoirError], dict[str, Any]],
    client: ClientConnection,
    send: Send,
) -> bool:
    """Send a stream to its client; if the engine breaks, it ends with an error event.

    Args:
        headers: None when the client has them already.

    Returns:
        Whether the stream came to its own end.
    """
    if headers is not None:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
    is_whole = await Relay(answer, client).run()
    event = b"" if is_whole else _error_event(render_error)
    await send({"type": "http.response.body", "body": event})
    return is_whole


def _error_event(render_error: Callable[[ComptoirError], dict[str, Any]]) -> bytes:
    error = EngineFailedError("the engine stopped while it was answering; the answer is incomplete")
    body = render_error(error)
    name = b"event: error\n" if body.get("type") == "error" else b""
    return name + b"data: " + orjson.dumps(body) + b"\n\n"
