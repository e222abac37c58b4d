"""The endpoints that models answer: check, route, forward. The gateway's hot path, one task per request.

It is plain ASGI: FastAPI's routing, dependencies and wrappers around `send` cost more than all of this
(docs/performance.md).
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.config.keys import INFERENCE
from serving.errors import (
    ComptoirError,
    MethodNotAllowedError,
    ShuttingDownError,
)
from serving.gateway import render
from serving.gateway.body import ClientLeftError
from serving.gateway.body_room import BodyRoom
from serving.gateway.busy import BusyError
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.dropped import DROPPED_HEADER, listed
from serving.gateway.engine_errors import from_engine
from serving.gateway.open_requests import OpenRequest
from serving.gateway.pace import Pace
from serving.gateway.reading import RequestReader
from serving.gateway.render import WholeAnswer, dialect_of, raw_headers, request_id_headers
from serving.gateway.request_ids import RequestIds
from serving.gateway.services import Services
from serving.gateway.streaming import (
    MAX_HELD_BYTES,
    Ending,
    end_passed,
    end_stream,
    pass_answer,
    stream_answer,
)
from serving.gateway.upstream import ReplicaBrokeError
from serving.gateway.waiting_stream import WaitingStream
from serving.http_protocol import ClientConnection, client_of

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
# Another gateway answers, or the next one does as soon as it is there.
LEAVING_RETRY_S = 2.0


class Inference:
    """An ASGI application for the paths in `services.endpoints`."""

    def __init__(self, services: Services, pace: Pace) -> None:
        self._services = services
        self._pace = pace
        self._ids = RequestIds()
        self._reader = RequestReader(services, pace)
        self._room = BodyRoom()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(scope)
        request_id = self._ids.next()
        task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]
        request = OpenRequest(task, self._room)
        # Whatever it is doing, a request whose client has gone stops there, and so does its engine.
        client.on_lost = task.cancel
        client.on_shutdown = lambda: request.end(leaving())
        self._services.open_requests.add(request)
        try:
            if not client.is_lost:
                await self._answer(scope, receive, send, client, request_id, request)
        except ClientLeftError:
            return
        except asyncio.CancelledError:
            if not client.is_lost:
                raise
        finally:
            client.on_lost = client.on_shutdown = None
            self._services.open_requests.discard(request)
            request.held.give_back()

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        client: ClientConnection,
        request_id: str,
        request: OpenRequest,
    ) -> None:
        path, began_s = scope["path"], time.perf_counter()
        waiting = WaitingStream(
            lambda: STREAM_HEADERS | request_id_headers(path, request_id), client, send
        )
        try:
            rules = self._services.rules
            endpoint = rules.endpoints[path]
            if scope["method"] != "POST":
                raise MethodNotAllowedError("this endpoint takes POST only")
            headers = first_values(scope)
            request.caller = caller = rules.keys.admit(
                INFERENCE, headers.get("authorization"), headers.get("x-api-key")
            )
            client.recognised(rules.keys.sharer(caller))
            checked = await self._reader.read(
                rules, endpoint, caller, headers, receive, request_id, request.held
            )
            response = await self._forward(checked, client, send, waiting, began_s, request)
        except ComptoirError as error:
            response = await self._failed(error, path, request_id, waiting)
        except asyncio.CancelledError:
            if client.is_lost or not request.was_ended():
                raise
            response = await self._ended(request, client, path, request_id, waiting)
        except Exception as error:  # noqa: BLE001 - the last resort: it must not show the client's text
            ours = render.unexpected(error, request_id)
            response = await self._failed(ours, path, request_id, waiting)
        if response is not None:
            await response(scope, receive, send)

    async def _failed(
        self, error: ComptoirError, path: str, request_id: str, waiting: WaitingStream
    ) -> ASGIApp | None:
        """Count it; returns the response, or None when a stream that had begun was ended with it."""
        metrics = self._services.metrics
        if error.status == 429:
            metrics.rejected.labels(_reason(error)).inc()
        metrics.requests.labels("", str(error.status)).inc()
        if waiting.has_begun:
            await waiting.fail(error, dialect_of(path))
            return None
        response = render.error_response(error, path, request_id)
        if error.status == 405:
            # RFC 9110, 15.5.6.
            response.headers["allow"] = "POST"
        return response

    async def _ended(
        self,
        request: OpenRequest,
        client: ClientConnection,
        path: str,
        request_id: str,
        waiting: WaitingStream,
    ) -> ASGIApp | None:
        """Send the reason of an ended request: as a stream's last event, or while nothing has been sent."""
        error = request.ended_by or leaving()
        if client.has_begun and (request.is_stream or waiting.has_begun):
            await waiting.fail(error, dialect_of(path))
            return None
        if client.has_begun:
            # Half of a whole answer: only the connection's end says that no more comes.
            raise asyncio.CancelledError
        return await self._failed(error, path, request_id, waiting)

    async def _forward(
        self,
        checked: CheckedRequest,
        client: ClientConnection,
        send: Send,
        waiting: WaitingStream,
        began_s: float,
        request: OpenRequest,
    ) -> ASGIApp | None:
        """Ask an engine; returns the response, or None when it has been streamed."""
        dispatcher, metrics = self._services.dispatcher, self._services.metrics
        response = await dispatcher.open(checked, waiting if checked.body.get("stream") else None)
        request.has_begun = True
        answer, path = response.replica_response.answer, checked.endpoint.path
        model = response.candidate.model_id
        try:
            with response:
                first_s = time.perf_counter() - began_s
                metrics.first_byte.labels(model).observe(first_s)
                headers = {"content-type": answer.content_type} | response.headers
                headers |= request_id_headers(path, checked.request_id)
                if checked.dropped:
                    headers[DROPPED_HEADER] = listed(checked.dropped)
                try:
                    if answer.status == 200 and answer.content_type.startswith("text/event-stream"):
                        metrics.ttft.labels(model).observe(first_s)
                        head = None if waiting.has_begun else raw_headers(STREAM_HEADERS | headers)
                        request.is_stream = True
                        ending = await stream_answer(answer, head, client, send)
                    elif (body := await answer.within(MAX_HELD_BYTES)) is not None:
                        return WholeAnswer(answer.status, raw_headers(headers), body)
                    else:
                        ending = await pass_answer(answer, raw_headers(headers), client, send)
                    if ending is Ending.BROKEN:
                        response.broke()
                except ReplicaBrokeError:
                    response.broke()
                    raise from_engine(502, b"") from None
                except asyncio.CancelledError:
                    response.is_broken = response.is_broken or request.ended_by is not None
                    raise
        finally:
            metrics.requests.labels(model, str(answer.status)).inc()
            metrics.duration.labels(model).observe(time.perf_counter() - began_s)
        # The slot is free: from here on, only the client is waited for.
        if request.is_stream:
            request.is_stream = False
            await end_stream(ending, dialect_of(path), client, send)
        else:
            await end_passed(ending, client, send)
        return None


def first_values(scope: Scope) -> dict[str, str]:
    """A request's headers; of a repeated one, the first. All at once cost less than each by itself."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in reversed(scope["headers"])
    }


def leaving() -> ShuttingDownError:
    """The error for requests that are still open when the gateway's time to stop is over."""
    return ShuttingDownError(
        "this gateway is shutting down before the answer is complete: try again",
        retry_after_s=LEAVING_RETRY_S,
    )


def _reason(error: ComptoirError) -> str:
    return error.reason if isinstance(error, BusyError) else "limit"
