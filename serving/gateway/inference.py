"""The endpoints that models answer: check, route, forward. The gateway's hot path, one task per request.

It is plain ASGI: FastAPI's routing, dependencies and wrappers around `send` cost more than all of this
(docs/performance.md).
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.errors import ComptoirError, MethodNotAllowedError, UnsupportedEndpointError
from serving.gateway import render
from serving.gateway.body import ClientLeftError, encode, read_object
from serving.gateway.engine_errors import from_engine
from serving.gateway.render import dialect_of, request_id_headers
from serving.gateway.services import Services
from serving.gateway.streaming import stream_answer
from serving.gateway.upstream import Answer, ReplicaBrokeError
from serving.http_protocol import ClientConnection, client_of
from serving.routing.directory import Model
from serving.tenancy.keys import Caller
from serving.trust.fields import Endpoint


class Inference:
    """An ASGI application for the paths in `services.endpoints`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(scope)
        request_id = uuid.uuid4().hex
        task = asyncio.current_task()
        # Whatever it is doing, a request whose client has gone stops there, and so does its engine.
        client.on_lost = task.cancel if task else None
        try:
            if not client.is_lost:
                await self._answer(scope, receive, send, client, request_id)
        except ClientLeftError:
            return
        except asyncio.CancelledError:
            if not client.is_lost:
                raise
        finally:
            client.on_lost = None

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, client: ClientConnection, request_id: str
    ) -> None:
        path = scope["path"]
        try:
            endpoint = self._services.endpoints[path]
            if scope["method"] != "POST":
                raise MethodNotAllowedError("this endpoint has another HTTP method")
            caller, body = await self._admit(endpoint, Headers(scope=scope), receive)
            response = await self._forward(endpoint, caller, body, client, send, request_id)
        except ComptoirError as error:
            response = render.error_response(error, path, request_id)
            if error.status == 405:
                # RFC 9110, 15.5.6.
                response.headers["allow"] = "POST"
        except Exception as error:  # noqa: BLE001 - the last resort: it must not show the client's text
            response = render.unexpected(error, path, request_id)
        if response is not None:
            await response(scope, receive, send)

    async def _admit(
        self, endpoint: Endpoint, headers: Headers, receive: Receive
    ) -> tuple[Caller, dict[str, Any]]:
        """Who asks, and what may be sent to an engine."""
        caller = self._services.keys.identify(
            headers.get("authorization"), headers.get("x-api-key")
        )
        body = await read_object(headers, receive, self._services.config.limits.max_body_bytes)
        return caller, endpoint.check(body)

    async def _forward(
        self,
        endpoint: Endpoint,
        caller: Caller,
        body: dict[str, Any],
        client: ClientConnection,
        send: Send,
        request_id: str,
    ) -> Response | None:
        """Ask an engine; returns the response, or None when it has been streamed."""
        model = self._services.directory().resolve(body["model"])
        served = model.served_name(body["model"])
        caller.require(served)
        _require_task(model, endpoint)
        body["model"] = served
        if endpoint.path == "/v1/responses":
            body["store"] = False
        if caller.cache_salt is not None:
            body["cache_salt"] = caller.cache_salt
        forwarder = self._services.forwarder
        answer, replica = await forwarder.open(model.id, endpoint.path, encode(body), request_id)
        headers = {"content-type": answer.content_type, "x-comptoir-model": served}
        headers |= request_id_headers(endpoint.path, request_id)
        try:
            if answer.status == 200 and answer.content_type.startswith("text/event-stream"):
                headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
                await stream_answer(answer, headers, dialect_of(endpoint.path), client, send)
                return None
            return await _whole(answer, headers, body)
        finally:
            # Closing the upstream connection is what makes the engine abort the request.
            answer.close()
            forwarder.done(replica)


async def _whole(answer: Answer, headers: dict[str, str], body: dict[str, Any]) -> Response:
    try:
        whole = await answer.rest()
    except ReplicaBrokeError:
        raise from_engine(502, b"") from None
    if answer.status >= 400:
        raise from_engine(answer.status, whole, body.keys())
    return Response(whole, answer.status, headers)


def _require_task(model: Model, endpoint: Endpoint) -> None:
    if model.task is not None and model.task not in endpoint.tasks:
        raise UnsupportedEndpointError(
            f"this model's task is '{model.task}', which {endpoint.path} does not serve",
            param="model",
        )
