"""The endpoints: short handlers that check, delegate and render."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from serving.errors import UnsupportedEndpointError
from serving.gateway import listing
from serving.gateway.body import encode, read_object
from serving.gateway.engine_errors import from_engine
from serving.gateway.render import dialect_of, request_id_headers
from serving.gateway.services import Services
from serving.gateway.streaming import ClientLeftError, StreamedAnswer, unless_client_leaves
from serving.gateway.upstream import ReplicaBrokeError
from serving.routing.directory import Model
from serving.tenancy.keys import Caller
from serving.trust.fields import Endpoint


def build_router(services: Services) -> APIRouter:
    """All routes of the gateway."""
    router = APIRouter()
    for endpoint in services.endpoints.values():
        router.add_api_route(
            endpoint.path, _forwarding(services, endpoint), methods=["POST"], response_model=None
        )

    @router.get("/v1/models", response_model=None)
    async def list_models(request: Request) -> Response:
        caller = _identify(services, request)
        return JSONResponse(listing.model_list(services.directory(), caller))

    @router.get("/v1/models/{name:path}", response_model=None)
    async def show_model(request: Request, name: str) -> Response:
        caller = _identify(services, request)
        return JSONResponse(listing.model_card(_allowed(services, name, caller), name))

    @router.get("/health", response_model=None)
    @router.get("/-/healthz", response_model=None)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @router.get("/ready", response_model=None)
    async def ready(request: Request) -> Response:
        everyone = "all" in request.query_params
        body, status = listing.readiness(services.directory(), everyone=everyone)
        if services.keys:
            # Probes carry no key, and what a site hosts is its customers' business.
            del body["models"]
        return JSONResponse(body, status)

    @router.get("/status", response_model=None)
    async def status(request: Request) -> Response:
        caller = _identify(services, request)
        return JSONResponse(
            listing.status(services.directory(), services.forwarder.in_flight, caller)
        )

    return router


def _forwarding(services: Services, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def forward(request: Request) -> Response:
        request.state.request_id = uuid.uuid4().hex
        caller = _identify(services, request)
        try:
            body = await read_object(request, services.config.limits.max_body_bytes)
        except ClientDisconnect:
            return _Nobody()
        checked = endpoint.check(body)
        model = _allowed(services, checked["model"], caller)
        _require_task(model, endpoint)
        checked["model"] = model.served_name(checked["model"])
        if endpoint.path == "/v1/responses":
            checked["store"] = False
        if caller.cache_salt is not None:
            checked["cache_salt"] = caller.cache_salt
        return await _answer(services, request, endpoint, model, checked)

    return forward


async def _answer(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    model: Model,
    checked: dict[str, Any],
) -> Response:
    request_id = request.state.request_id
    opening = services.forwarder.open(model.id, endpoint.path, encode(checked), request_id)
    try:
        answer, replica = await unless_client_leaves(request.receive, opening)
    except ClientLeftError:
        return _Nobody()
    headers = {"content-type": answer.content_type, "x-comptoir-model": checked["model"]}
    headers |= request_id_headers(endpoint.path, request_id)
    if answer.status == 200 and answer.content_type.startswith("text/event-stream"):
        headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamedAnswer(
            answer,
            headers,
            dialect_of(endpoint.path),
            lambda: services.forwarder.done(replica),
        )
    try:
        whole = await unless_client_leaves(request.receive, answer.rest())
    except ClientLeftError:
        return _Nobody()
    except ReplicaBrokeError:
        raise from_engine(502, b"") from None
    finally:
        answer.close()
        services.forwarder.done(replica)
    if answer.status >= 400:
        raise from_engine(answer.status, whole, checked.keys())
    return Response(whole, answer.status, headers)


class _Nobody(Response):
    """The response to a client that has gone: nothing is sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


def _identify(services: Services, request: Request) -> Caller:
    return services.keys.identify(
        request.headers.get("authorization"), request.headers.get("x-api-key")
    )


def _allowed(services: Services, name: Any, caller: Caller) -> Model:
    model = services.directory().resolve(name)
    caller.require(model.served_name(name))
    return model


def _require_task(model: Model, endpoint: Endpoint) -> None:
    if model.task is not None and model.task not in endpoint.tasks:
        raise UnsupportedEndpointError(
            f"this model's task is '{model.task}', which {endpoint.path} does not serve",
            param="model",
        )
