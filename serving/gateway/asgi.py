"""Builds the gateway's ASGI application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from serving.errors import ComptoirError
from serving.gateway import render
from serving.gateway.routes import build_router
from serving.gateway.services import Services


def build_asgi(services: Services) -> FastAPI:
    """The application; `services.upstream` must be started before the first request."""
    app = FastAPI(
        title="Comptoir", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.include_router(build_router(services))
    app.add_exception_handler(ComptoirError, render.on_comptoir_error)
    app.add_exception_handler(HTTPException, render.on_http_exception)
    app.add_exception_handler(Exception, render.on_unexpected)
    return app
