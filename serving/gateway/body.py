"""Reads a request's body once: bounded, JSON, an object."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive

from serving.errors import (
    BodyTooLargeError,
    InvalidFieldError,
    MalformedJsonError,
    UnsupportedMediaTypeError,
)


class ClientLeftError(Exception):
    """The client closed its connection before its request was complete."""


async def read_object(headers: Headers, receive: Receive, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        UnsupportedMediaTypeError: it is not declared as JSON.
        BodyTooLargeError: it is longer than `max_bytes`; reading stops there.
        MalformedJsonError: it is not valid JSON (RFC 8259), or not an object.
        ClientLeftError: nobody waits for an answer.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaTypeError("send the header 'Content-Type: application/json'")
    try:
        body = orjson.loads(await _read(headers, receive, max_bytes))
    except orjson.JSONDecodeError as error:
        raise MalformedJsonError(
            f"the body is not valid JSON (line {error.lineno}, column {error.colno})"
        ) from None
    if not isinstance(body, dict):
        raise MalformedJsonError("the body must be a JSON object")
    return body


async def _read(headers: Headers, receive: Receive, max_bytes: int) -> bytes:
    declared = headers.get("content-length", "0")
    # `isdecimal`: `isdigit` also takes superscripts, which `int` refuses.
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise BodyTooLargeError(f"the body may have at most {max_bytes} bytes")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise BodyTooLargeError(f"the body may have at most {max_bytes} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def encode(body: dict[str, Any]) -> bytes:
    """The body for the engine. It is always written anew, so that engine and gateway cannot read it
    differently (doubled keys, odd escapes).

    Raises:
        InvalidFieldError: it is nested too deeply to write.
    """
    try:
        return orjson.dumps(body)
    except TypeError:
        raise InvalidFieldError("the body is nested too deeply") from None
