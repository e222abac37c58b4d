"""Bodies compressed with gzip: unpacked, however they are cut, and bounded by what they unpack to."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from starlette.datastructures import Headers

from serving.errors import (
    BodyTooLargeError,
    MalformedJsonError,
    UnsupportedEncodingError,
)
from serving.gateway.body import ClientLeftError, as_object, parse, read_text
from serving.gateway.pace import Pace
from serving.settings import RequestLimits

JSON = {"content-type": "application/json"}
LIMIT = 100_000


async def read(raw: bytes, size: int = 1000, **headers: str) -> dict[str, Any]:
    """Read a body that arrives in pieces."""
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
    messages: Iterator[tuple[int, bytes]] = iter(enumerate(pieces, 1))

    async def receive() -> dict[str, Any]:
        number, piece = next(messages)
        return {"type": "http.request", "body": piece, "more_body": number < len(pieces)}

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    limits = RequestLimits(max_body_bytes=LIMIT)
    return as_object(parse(await read_text(Headers(JSON | named), receive, limits, Pace())))


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
async def test_a_packed_body_is_unpacked(encoding: str, size: int) -> None:
    body = {"text": "Grüße " * 1000}
    packed = gzip.compress(orjson.dumps(body))
    assert await read(packed, size, content_encoding=encoding) == body


async def test_a_body_that_is_not_packed_may_say_so() -> None:
    assert await read(b'{"a": 1}', content_encoding="identity") == {"a": 1}


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "nonsense"])
async def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError, match="gzip"):
        await read(b"{}", content_encoding=encoding)


async def test_the_limit_holds_for_what_a_body_unpacks_to() -> None:
    fits = b'{"a": "' + b"x" * (LIMIT - 9) + b'"}'
    assert await read(gzip.compress(fits), content_encoding="gzip")
    with pytest.raises(BodyTooLargeError):
        await read(gzip.compress(fits + b" "), content_encoding="gzip")


async def test_no_more_is_unpacked_of_a_bomb_than_the_limit() -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    assert len(bomb) > LIMIT
    with pytest.raises(BodyTooLargeError):
        await read(bomb[:LIMIT], LIMIT, content_encoding="gzip")


@pytest.mark.parametrize(
    "raw",
    [
        b"not gzip",
        b"",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}") + b"x",
        gzip.compress(b"{}") + gzip.compress(b"{}"),
        gzip.compress(b"not json"),
    ],
    ids=["plain", "nothing", "cut", "one byte more", "two", "not JSON"],
)
async def test_what_is_not_a_whole_packed_object_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedJsonError):
        await read(raw, content_encoding="gzip")


async def test_a_client_that_leaves_gets_no_answer() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeftError):
        await read_text(Headers(JSON), receive, RequestLimits(), Pace())
