"""The endpoints that the gateway itself answers: models, health, readiness, status."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving import api
from serving.config.keys import SCOPES, Scope
from serving.discovery.directory import Model
from serving.gateway import listing, openapi, report
from serving.gateway.body import JSON
from serving.gateway.services import Rules, Services
from serving.gateway.turns import Turns
from serving.http_protocol import client_of
from serving.telemetry.metrics import CONTENT_TYPE
from serving.tenancy.keys import Caller

# Who may know which models there are: those who ask them, and who runs the site.
SEES_MODELS: tuple[Scope, ...] = ("inference", "operator")
# RFC 9110, 9.3.2: probes often ask for the head alone. The listener leaves the body out.
READS = ["GET", "HEAD"]
# Says of /status and /metrics whether they are the site's or one tenant's.
VIEW_HEADER = "x-comptoir-view"


def build_router(services: Services) -> APIRouter:
    """A router for all of them."""
    router = APIRouter()
    _add_models(router, services)
    _add_probes(router, services)
    _add_figures(router, services)
    described = _describer()

    @router.api_route(api.OPENAPI, methods=READS, response_model=None)
    async def describe() -> Response:
        return Response(described(services.rules), media_type=JSON)

    return router


def _add_models(router: APIRouter, services: Services) -> None:
    @router.api_route(api.MODELS, methods=READS, response_model=None)
    async def list_models(request: Request) -> Response:
        caller = _caller(services, request, *SEES_MODELS)
        names = services.dispatcher.names(caller)
        routing = services.dispatcher.routing
        return JSONResponse(listing.model_list(services.directory(), caller, routing, names))

    @router.api_route(api.MODELS + "/{name:path}", methods=READS, response_model=None)
    async def show_model(request: Request, name: str) -> Response:
        caller = _caller(services, request, *SEES_MODELS)
        routing = services.dispatcher.routing
        lifetime = listing.lifetime(routing, name)
        if name in services.dispatcher.names(caller):
            return JSONResponse(listing.name_card(name, routing, services.directory()) | lifetime)
        model = _allowed(services, name, caller)
        return JSONResponse(listing.card_for(caller, model, name) | lifetime)


def _add_probes(router: APIRouter, services: Services) -> None:
    @router.api_route(api.HEALTH, methods=READS, response_model=None)
    @router.api_route(api.HEALTHZ, methods=READS, response_model=None)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @router.api_route(api.READY, methods=READS, response_model=None)
    async def ready(request: Request) -> Response:
        services.probed_s = time.monotonic()
        everyone = "all" in request.query_params
        body, status = listing.readiness(services.directory(), everyone=everyone)
        if services.is_leaving:
            body, status = body | {"ready": False, "leaving": True}, 503
        if services.keys:
            # Probes carry no key, and what a site hosts is its customers' business.
            del body["models"]
        return JSONResponse(body, status)


def _add_figures(router: APIRouter, services: Services) -> None:
    turns = Turns()

    @router.api_route(api.STATUS, methods=READS, response_model=None)
    async def status(request: Request) -> Response:
        caller = _caller(services, request, "inference", "operator")
        headers = {VIEW_HEADER: report.view(caller.sees_site)}
        return JSONResponse(report.status(services, caller), headers=headers)

    @router.api_route(api.METRICS, methods=READS, response_model=None)
    async def metrics(request: Request) -> Response:
        # With keys the endpoint may be public, and how busy a site is is its own business.
        caller = _caller(services, request, *SCOPES)
        sees = None if caller.sees_metrics else report.own_rows(caller)
        # A large site's scrape takes seconds: streams do not wait for it, nor others' scrapes for all of one
        # tenant's.
        async with services.dispatcher.semaphores.hold(caller.name):
            body = await turns.run(_joined(services.metrics.parts(report.gauges(services), sees)))
        headers = {"content-type": CONTENT_TYPE, VIEW_HEADER: report.view(caller.sees_metrics)}
        return Response(body, headers=headers)


def _joined(parts: Iterable[bytes]) -> Generator[None, None, bytes]:
    pieces = []
    for part in parts:
        pieces.append(part)
        yield
    return b"".join(pieces)


def _describer() -> Callable[[Rules], bytes]:
    """Describes the API, once for each configuration."""
    last: tuple[Rules, bytes] | None = None

    def described(rules: Rules) -> bytes:
        nonlocal last
        if last is None or last[0] is not rules:
            last = rules, orjson.dumps(openapi.document(rules.config, rules.endpoints))
        return last[1]

    return described


def _caller(services: Services, request: Request, *needs: Scope) -> Caller:
    caller = services.keys.admit(
        needs, request.headers.get("authorization"), request.headers.get("x-api-key")
    )
    client_of(request.scope).recognised(services.keys.sharer(caller))
    return caller


def _allowed(services: Services, name: Any, caller: Caller) -> Model:
    model = services.directory().resolve(name)
    caller.require(model.served_name(name))
    return model
