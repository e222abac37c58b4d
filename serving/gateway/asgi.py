"""Builds the gateway's ASGI application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.config.browsers import CorsConfig
from serving.errors import ComptoirError
from serving.gateway import openapi, render
from serving.gateway.azure import AzurePaths
from serving.gateway.inference import Inference
from serving.gateway.pace import Pace
from serving.gateway.routes import build_router
from serving.gateway.services import Services
from serving.replica_protocol import REQUEST_ID_HEADER

# What a request takes of the gateway's time, apart from the work on its body: on FastAPI's way it is more.
INFERENCE_S, OTHERS_S = 0.0001, 0.0004
# FastAPI parses every query, a long one for a tenth of a second, and nobody needs a key for that. The only
# parameter that there is has three letters.
MAX_QUERY_BYTES = 256
# Headers of answers that a page may read.
EXPOSED = (REQUEST_ID_HEADER, "request-id", "retry-after", *openapi.HEADERS)


def build_asgi(services: Services) -> ASGIApp:
    """The application, to be served by a `Listener`."""
    pace = Pace()
    inference, others = Inference(services, pace), _others(services)

    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in services.endpoints:
            if pace.is_full:
                await pace.enter()
            pace.spend(INFERENCE_S)
            await inference(scope, receive, send)
            return
        if len(scope.get("query_string", b"")) > MAX_QUERY_BYTES:
            scope["query_string"] = scope["query_string"][:MAX_QUERY_BYTES]
        await pace.enter()
        pace.spend(OTHERS_S)
        await others(scope, receive, send)

    app: ASGIApp = gateway
    if services.config.azure_paths:
        app = AzurePaths(app)
    if services.config.cors.origins:
        app = _with_cors(app, services.config.cors)
    return app


def _with_cors(app: ASGIApp, config: CorsConfig) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=config.origins,
        allow_methods=("GET", "POST"),
        # All that a page asks for: clients of several vendors send headers of their own.
        allow_headers=("*",),
        expose_headers=EXPOSED,
        max_age=config.max_age_s,
    )


def _others(services: Services) -> FastAPI:
    """The routes that no engine answers."""
    app = FastAPI(
        title="Comptoir", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.include_router(build_router(services))
    app.add_exception_handler(ComptoirError, render.on_comptoir_error)
    app.add_exception_handler(HTTPException, render.on_http_exception)
    app.add_exception_handler(Exception, render.on_unexpected)
    return app
