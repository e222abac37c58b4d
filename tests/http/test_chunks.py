"""Chunked bodies: read wherever they are cut, and not a byte further; strict and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import MalformedHttpError
from serving.http.chunks import MAX_CHUNKS_AT_ONCE, MAX_EXCESS_BYTES, Chunks
from tests.http.wire import chunked


def take_all(chunks: Chunks, buffer: bytes) -> tuple[bytes, bytes]:
    """What is there of the body, and the rest."""
    body = b""
    while True:
        data, used = chunks.take(buffer)
        body, buffer = body + data, buffer[used:]
        if not chunks.is_behind:
            return body, buffer


def read(raw: bytes, sizes: list[int]) -> tuple[bytes, bytes]:
    """The body, and what is left of `raw`, when it arrives in pieces of these sizes."""
    chunks, body, buffer = Chunks(), b"", b""
    sizes = [*sizes, len(raw)]
    for size in sizes:
        buffer, raw = buffer + raw[:size], raw[size:]
        data, buffer = take_all(chunks, buffer)
        body += data
    assert chunks.is_whole
    return body, buffer + raw


@given(st.binary(max_size=200), st.integers(1, 50), st.lists(st.integers(0, 20), max_size=60))
def test_a_body_is_the_same_however_it_is_cut(body: bytes, size: int, sizes: list[int]) -> None:
    assert read(chunked(body, size) + b"GET / HTTP/1.1", sizes) == (body, b"GET / HTTP/1.1")


@given(st.binary(max_size=100), st.lists(st.integers(1, 9), max_size=20))
def test_anything_else_is_refused_or_waited_for_and_never_crashes(
    raw: bytes, sizes: list[int]
) -> None:
    chunks, buffer = Chunks(), b""
    for size in [*sizes, len(raw)]:
        buffer, raw = buffer + raw[:size], raw[size:]
        try:
            data, used = chunks.take(buffer)
        except MalformedHttpError:
            return
        assert len(data) <= used <= len(buffer)
        buffer = buffer[used:]


@pytest.mark.parametrize(
    "raw",
    [
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"\r\n",
        b"11111111111111111\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n : x\r\n\r\n",
        b"0\r\na: b\nc: d\r\n\r\n",
        b"3;" + b"x" * 2000,
        b"0\r\n" + b"a: b\r\n" * 2000,
    ],
)
def test_what_is_not_chunked_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedHttpError):
        take_all(Chunks(), raw)


def test_extensions_are_dropped_and_bounded() -> None:
    body, rest = read(b"3;name=value\r\nabc\r\n0;last\r\n\r\n", [])
    assert (body, rest) == (b"abc", b"")
    chunk = b"1;" + b"x" * 900 + b"\r\na\r\n"
    with pytest.raises(MalformedHttpError, match="too little data"):
        Chunks().take(chunk * (MAX_EXCESS_BYTES // 900 + 2))


def test_small_chunks_may_be_many_and_tiny_ones_may_not() -> None:
    body, _ = read(chunked(b"x" * 500_000, 10), [])
    assert len(body) == 500_000
    body, _ = read(chunked(b"x" * 3000, 1), [])
    assert len(body) == 3000
    with pytest.raises(MalformedHttpError, match="too little data"):
        read(chunked(b"x" * 30_000, 1), [])


def test_others_have_a_turn_between_many_chunks() -> None:
    chunks, raw = Chunks(), chunked(b"x" * 100_000, 10)
    data, used = chunks.take(raw)
    assert chunks.is_behind
    assert len(data) <= 10 * MAX_CHUNKS_AT_ONCE
    assert take_all(chunks, raw[used:]) == (b"x" * (100_000 - len(data)), b"")
