"""Reads a request's body once: bounded, JSON, an object."""

from __future__ import annotations

from dataclasses import dataclass
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
from serving.gateway.json_pieces import many_values_in_steps, parse_in_steps
from serving.gateway.turns import Turns
from serving.settings import RequestLimits

# Up to here everything that is done with a body takes a millisecond or two, whatever it holds.
LARGE_BYTES = 32 * 1024


class ClientLeftError(Exception):
    """The client closed its connection before its request was complete."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body; a large one takes so long that others must run meanwhile."""

    fields: dict[str, Any]
    is_large: bool


async def read_object(
    headers: Headers, receive: Receive, limits: RequestLimits, turns: Turns
) -> Body:
    """The body as a JSON object.

    Raises:
        UnsupportedMediaTypeError: it is not declared as JSON.
        BodyTooLargeError: it is longer than `limits.max_body_bytes`; reading stops there.
        MalformedJsonError: it is not valid JSON (RFC 8259), or not an object.
        InvalidFieldError: it holds too many lists and objects.
        ClientLeftError: nobody waits for an answer.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaTypeError("send the header 'Content-Type: application/json'")
    text = await _read(headers, receive, limits.max_body_bytes)
    is_large = len(text) > LARGE_BYTES
    if is_large and await turns.run(many_values_in_steps(text)):
        body = await turns.run(parse_in_steps(text, limits.max_objects))
    else:
        body = _parse(text)
    if not isinstance(body, dict):
        raise MalformedJsonError("the body must be a JSON object")
    return Body(body, is_large)


def _parse(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedJsonError(
            f"the body is not valid JSON (line {error.lineno}, column {error.colno})"
        ) from None


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
