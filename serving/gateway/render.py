"""Renders errors, in OpenAI's form and in Anthropic's."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.api import ANTHROPIC_PATHS, OPENAPI, PATHS
from serving.errors import (
    ComptoirError,
    MethodNotAllowedError,
    RouteNotFoundError,
    UnsupportedEncodingError,
)
from serving.gateway.body import JSON
from serving.replica_protocol import REQUEST_ID_HEADER

logger = logging.getLogger("ray.serve.comptoir")

# As ASGI has them.
Headers = list[tuple[bytes, bytes]]
# How a client of one provider reads errors.
Dialect = Callable[[ComptoirError], dict[str, Any]]

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def openai_error(error: ComptoirError) -> dict[str, Any]:
    """https://platform.openai.com/docs/guides/error-codes."""
    return error.as_openai()


def anthropic_error(error: ComptoirError) -> dict[str, Any]:
    """https://docs.anthropic.com/en/api/errors."""
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def dialect_of(path: str) -> Dialect:
    """The format of errors on this path."""
    return anthropic_error if path.startswith(ANTHROPIC_PATHS) else openai_error


def error_event(error: ComptoirError, dialect: Dialect) -> bytes:
    """The error as the last event of a stream."""
    body = dialect(error)
    name = b"event: error\n" if body.get("type") == "error" else b""
    return name + b"data: " + orjson.dumps(body) + b"\n\n"


def request_id_headers(path: str, request_id: str) -> dict[str, str]:
    """The request's id, under the name that the official clients of this path look for."""
    headers = {REQUEST_ID_HEADER: request_id}
    if path.startswith(ANTHROPIC_PATHS):
        headers["request-id"] = request_id
    return headers


def raw_headers(headers: Mapping[str, str]) -> Headers:
    """Headers as ASGI has them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


class WholeAnswer:
    """An engine's answer as an ASGI application: what Starlette's `Response` does, for half of the time."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self._status = status
        self._headers = headers
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self._body))
        headers = [*self._headers, length]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def error_response(error: ComptoirError, path: str, request_id: str | None = None) -> Response:
    """The HTTP response of an error."""
    headers = request_id_headers(path, request_id) if request_id else {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, UnsupportedEncodingError):
        # RFC 9110, 15.5.16.
        headers["accept-encoding"] = "gzip"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = orjson.dumps(dialect_of(path)(error))
    return Response(body, error.status, headers, media_type=JSON)


async def on_comptoir_error(request: Request, error: Exception) -> Response:
    """Exception handler for our own tree."""
    ours = error if isinstance(error, ComptoirError) else ComptoirError("internal error")
    return error_response(ours, request.url.path)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler for what the router raises: unknown path, wrong method."""
    status = getattr(error, "status_code", 500)
    if status == 405:
        ours: ComptoirError = MethodNotAllowedError(
            "this endpoint does not take this HTTP method: see the header Allow"
        )
    elif status == 404:
        ours = RouteNotFoundError(f"there is no such endpoint{_meant(request.url.path)}")
    else:
        ours = ComptoirError("the request could not be handled")
    response = error_response(ours, request.url.path)
    # RFC 9110 wants `Allow` with a 405; the router knows it.
    response.headers.update(getattr(error, "headers", None) or {})
    return response


# A longer path resembles none, and comparing takes time with the length.
_MAX_PATH = 64


def _meant(path: str) -> str:
    """The path that a client may have meant, of those that there are."""
    near = difflib.get_close_matches(path, PATHS, n=1) if len(path) <= _MAX_PATH else []
    return f"; did you mean {near[0]}?" if near else f": GET {OPENAPI} describes all"


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Exception handler of last resort."""
    return error_response(unexpected(error, None), request.url.path)


def unexpected(error: Exception, request_id: str | None) -> ComptoirError:
    """The answer for a defect of ours: its type is logged, its message might contain the client's text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else "?"
    logger.error("unexpected %s in %s, request %s", type(error).__name__, where, request_id)
    return ComptoirError("internal error")
