"""Forwards a replica's answer to the client, and notices when either side goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.errors import ComptoirError, EngineFailedError
from serving.gateway.engine_errors import stream_error_at
from serving.gateway.upstream import Answer, ReplicaBrokeError

T = TypeVar("T")


class ClientLeftError(Exception):
    """The client closed its connection before an answer began."""


async def unless_client_leaves(receive: Receive, work: Awaitable[T]) -> T:
    """Await `work`, but cancel it as soon as the client disconnects.

    Raises:
        ClientLeftError: the client went away; `work` has been cancelled.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        for each in (watch, task):
            if not each.done():
                each.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return


class StreamedAnswer(Response):
    """An ASGI response that passes a stream through, chunk by chunk as it arrives."""

    def __init__(
        self,
        answer: Answer,
        headers: dict[str, str],
        render_error: Callable[[ComptoirError], dict[str, Any]],
        finished: Callable[[], None],
    ) -> None:
        super().__init__()
        self._answer = answer
        self._start_headers = [(k.encode(), v.encode()) for k, v in headers.items()]
        self._render_error = render_error
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        forward = asyncio.create_task(self._forward(send))
        watch = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((forward, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Closing the upstream connection is what makes the engine abort the request.
            self._answer.close()
            for task in (forward, watch):
                if not task.done():
                    task.cancel()
            await asyncio.gather(forward, watch, return_exceptions=True)
            self._finished()

    async def _forward(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._start_headers})
        try:
            chunk, rest = self._answer.first, b""
            while chunk:
                # Whole events only: one that a packet's end cut in two could hide an error.
                rest = await self._send_events(send, rest + chunk if rest else chunk)
                chunk = await self._answer.next()
            if rest:
                raise ReplicaBrokeError("the last event is incomplete")
        except ReplicaBrokeError:
            event = self._error_event()
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _send_events(self, send: Send, data: bytes) -> bytes:
        """Send the complete events of `data`; returns what is left of an incomplete one."""
        end = len(data) if data.endswith(b"\n\n") else data.rfind(b"\n\n") + 2
        events, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        if end < 2:
            return data
        failed_at = stream_error_at(events)
        if failed_at >= 0:
            events = events[:failed_at]
        if events:
            await send({"type": "http.response.body", "body": events, "more_body": True})
        if failed_at >= 0:
            raise ReplicaBrokeError("error event")
        return rest

    def _error_event(self) -> bytes:
        error = EngineFailedError(
            "the engine stopped while it was answering; the answer is incomplete"
        )
        body = self._render_error(error)
        name = b"event: error\n" if body.get("type") == "error" else b""
        return name + b"data: " + orjson.dumps(body) + b"\n\n"
