"""Reads a request's body once: bounded, JSON, an object."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import Any

import orjson
from starlette.types import Receive

from serving.errors import (
    BodyTooLargeError,
    InvalidFieldError,
    MalformedJsonError,
    UnsupportedMediaTypeError,
)
from serving.gateway.gunzip import unpacker
from serving.gateway.json_pieces import many_values_in_steps, parse_in_steps
from serving.gateway.pace import Pace
from serving.gateway.turns import Turns
from serving.settings import RequestLimits

JSON = "application/json"
# Up to here everything that is done with a body takes a millisecond or two, whatever it holds.
LARGE_BYTES = 32 * 1024
# Up to here, a tenth of that.
SMALL_BYTES = 4 * 1024


# Called with the length of each piece of a body that is kept.
Took = Callable[[int], None]


def _nobody(size: int) -> None:
    """Count nothing."""


class ClientLeftError(Exception):
    """The client closed its connection before its request was complete."""


async def read_text(
    headers: Mapping[str, str],
    receive: Receive,
    limits: RequestLimits,
    pace: Pace,
    took: Took = _nobody,
) -> bytes:
    """The body as received, decompressed.

    Raises:
        UnsupportedMediaTypeError: it is not declared as JSON.
        UnsupportedEncodingError: it is compressed, and not with gzip.
        BodyTooLargeError: it is longer than `limits.max_body_bytes`, packed or unpacked; reading stops there.
        ClientLeftError: the client has gone.
        ComptoirError: what `took` raises, which hears of each piece's length.
    """
    kind = headers.get("content-type", "")
    if kind != JSON and kind.partition(";")[0].strip().lower() != JSON:
        raise UnsupportedMediaTypeError("send the header 'Content-Type: application/json'")
    return await _read(headers, receive, limits.max_body_bytes, pace, took)


def parse(text: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        MalformedJsonError: it is not valid JSON (RFC 8259).
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedJsonError(
            f"the body is not valid JSON (line {error.lineno}, column {error.colno})"
        ) from None


async def parse_large(text: bytes, limits: RequestLimits, turns: Turns) -> Any:
    """The same for a text so large that others must run meanwhile.

    Raises:
        InvalidFieldError: it holds too many lists and objects.
    """
    if await turns.run(many_values_in_steps(text)):
        return await turns.run(parse_in_steps(text, limits.max_objects))
    value = parse(text)
    await asyncio.sleep(0)
    return value


def as_object(value: Any) -> dict[str, Any]:
    """Raises: MalformedJsonError: it is none."""
    if not isinstance(value, dict):
        raise MalformedJsonError("the body must be a JSON object")
    return value


async def _read(
    headers: Mapping[str, str], receive: Receive, max_bytes: int, pace: Pace, took: Took
) -> bytes:
    declared = headers.get("content-length", "0")
    # `isdecimal`: `isdigit` also takes superscripts, which `int` refuses.
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise BodyTooLargeError(f"the body may have at most {max_bytes} bytes")
    encoding = headers.get("content-encoding")
    gunzip = unpacker(encoding) if encoding else None
    parts: list[bytes] = []
    size = packed_size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        packed = message.get("body", b"")
        packed_size += len(packed)
        while True:
            part = packed if gunzip is None else await pace.run(partial(gunzip.some, packed))
            size += len(part)
            if size > max_bytes or packed_size > max_bytes:
                raise BodyTooLargeError(f"the body may have at most {max_bytes} bytes")
            took(len(part))
            parts.append(part)
            if gunzip is None or not gunzip.rest:
                break
            packed = gunzip.rest
        if not message.get("more_body", False):
            if gunzip is not None:
                gunzip.check_end()
            return b"".join(parts)


def encode(body: dict[str, Any]) -> bytes:
    """The body for the engine. It is always written anew, so that engine and gateway cannot read it
    differently (doubled keys, odd escapes).

    Raises:
        InvalidFieldError: it is nested too deeply to write.
    """
    return _dumps(body)


def encode_in_steps(body: dict[str, Any]) -> Generator[None, None, bytes]:
    """The same for a large body: others may run between two steps."""
    pieces: list[bytes] = []
    yield from _write(body, pieces, 0)
    return b"".join(pieces)


_HOLDERS = frozenset({dict, list})
# What is written in one go: so many characters, or values.
PIECE_CHARACTERS, PIECE_VALUES = 64 * 1024, 1024
# As deep as orjson writes.
_MAX_DEPTH = 254


def _write(value: Any, pieces: list[bytes], depth: int) -> Iterator[None]:
    if depth > _MAX_DEPTH:
        raise InvalidFieldError("the body is nested too deeply")
    if _values(value) <= PIECE_VALUES:
        pieces.append(_dumps(value))
    elif isinstance(value, str):
        # Escapes are made character by character, so that pieces of a string make the string.
        pieces.append(b'"')
        for start in range(0, len(value), PIECE_CHARACTERS):
            pieces.append(_dumps(value[start : start + PIECE_CHARACTERS])[1:-1])
            yield
        pieces.append(b'"')
    elif isinstance(value, dict):
        sign = b"{"
        for key, member in value.items():
            pieces += (sign, _dumps(key), b":")
            yield from _write(member, pieces, depth + 1)
            sign = b","
        pieces.append(b"}")
    elif type(value[0]) in (int, float):
        # Long and plain, as token ids are.
        for start in range(0, len(value), PIECE_VALUES):
            some = _dumps(value[start : start + PIECE_VALUES])[1:-1]
            pieces += (b"," if start else b"[", some)
            yield
        pieces.append(b"]")
    else:
        yield from _write_list(value, pieces, depth)
    yield


def _write_list(value: list[Any], pieces: list[bytes], depth: int) -> Iterator[None]:
    """Small elements together, large ones in pieces of their own."""
    sign, together, size = b"[", list[Any](), 0
    for element in value:
        weight = _values(element)
        if together and size + weight > PIECE_VALUES:
            pieces += (sign, _dumps(together)[1:-1])
            sign, together, size = b",", [], 0
            yield
        if weight <= PIECE_VALUES:
            together.append(element)
            size += weight
        else:
            pieces.append(sign)
            yield from _write(element, pieces, depth + 1)
            sign = b","
    if together:
        pieces += (sign, _dumps(together)[1:-1])
    pieces.append(b"]")


def _values(value: Any) -> int:
    """The number of values, with every 64 characters as one; counting stops at too many."""
    values = 0
    stack = [value]
    while stack and values <= PIECE_VALUES:
        node = stack.pop()
        values += 1
        if isinstance(node, str):
            values += len(node) // 64
        elif isinstance(node, (dict, list)):
            if len(node) + len(stack) > PIECE_VALUES:
                return PIECE_VALUES + 1
            if isinstance(node, dict):
                values += sum(map(len, node)) // 64
                stack.extend(node.values())
            else:
                stack.extend(node)
    return values


def discard_in_steps(value: dict[str, Any] | list[Any]) -> Generator[None, None, None]:
    """Free the memory of a body that is no longer needed, in steps; it is empty afterwards."""
    dropped = 0
    while value:
        if isinstance(value, list):
            # Numbers and texts, a piece at a time.
            if _is_flat(value[-PIECE_VALUES:]):
                del value[-PIECE_VALUES:]
                yield
                continue
            child = value.pop()
        else:
            child = value.popitem()[1]
        is_short = isinstance(child, list) and len(child) <= PIECE_VALUES
        weight = len(child) if is_short and _is_flat(child) else _values(child)
        if weight > PIECE_VALUES and isinstance(child, (dict, list)):
            yield from discard_in_steps(child)
        dropped += min(weight, PIECE_VALUES)
        # The last reference, as far as this knows.
        del child
        if dropped >= PIECE_VALUES:
            dropped = 0
            yield


def _is_flat(values: list[Any]) -> bool:
    """Whether none of the values contains others."""
    return _HOLDERS.isdisjoint(map(type, values))


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        raise InvalidFieldError("the body is nested too deeply") from None
