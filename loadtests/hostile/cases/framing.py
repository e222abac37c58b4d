"""Requests that two parsers could read differently: smuggling, in every way that is known.

RFC 9112, 6.3 and 11.2; PortSwigger's and Kettle's papers of 2019 to 2025 describe the attacks.
"""

from __future__ import annotations

from functools import partial

from loadtests.hostile.case import Cases, endless, expect, nothing_more
from loadtests.hostile.target import CHAT, Target
from loadtests.hostile.wire import BrokenError, Wire
from serving import api

cases = Cases("framing")
answers = cases.answers

REFUSED = (400, 501)
HIDDEN = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % api.MODELS.encode()


def _raw(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _hidden_in_chunks(*lines: str) -> bytes:
    """A chunked body that ends at once, and behind it what must not be read as a request."""
    return _raw(f"POST {CHAT} HTTP/1.1", "host: x", *lines, body=b"0\r\n\r\n" + HIDDEN)


def _hidden_behind(_: Target, lines: tuple[str, ...]) -> bytes:
    return _hidden_in_chunks(*lines)


def _chunked(target: Target, chunks: bytes) -> bytes:
    """A request with this for its chunks, and behind it what must not be read as another."""
    lines = ("content-type: application/json", "transfer-encoding: chunked")
    return target.head("POST", CHAT, *lines) + chunks + HIDDEN


async def _body_in_a_second_segment(target: Target, *lines: str, path: str = api.HEALTH) -> None:
    """A body that looks like a request, sent after its head has been read: one answer only."""
    async with await Wire.open(target) as wire:
        head = target.head("POST", path, *lines, f"content-length: {len(HIDDEN)}")
        await wire.send(head)
        await _pause()
        await wire.try_send(HIDDEN)
        if await wire.reply("POST") is None:
            raise BrokenError("no answer")
        await nothing_more(wire)


async def _pause() -> None:
    import asyncio

    await asyncio.sleep(0.1)


@cases.add("upgrade-body", "the body of a request that offers an upgrade is never a request")
async def _(target: Target) -> None:
    await _body_in_a_second_segment(target, "connection: upgrade", "upgrade: foo")


@cases.add("upgrade-h2c-body", "the same with HTTP2-Settings, as Java's client sends it")
async def _(target: Target) -> None:
    lines = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAA")
    await _body_in_a_second_segment(target, *lines)
    await _body_in_a_second_segment(target, *lines, path=CHAT)


@cases.add("upgrade-websocket-body", "the same with a WebSocket's handshake")
async def _(target: Target) -> None:
    await _body_in_a_second_segment(
        target,
        *("connection: upgrade", "upgrade: websocket"),
        *("sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
    )


@cases.add("upgrade-h2c-chat", "a chat that offers h2c gets its ordinary answer")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        lines = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAA")
        await wire.send(target.post(target.chat(), *lines))
        expect(await wire.reply("POST"), (200,))


@cases.add("connect", "CONNECT opens no tunnel")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(_raw("CONNECT 127.0.0.1:22 HTTP/1.1", "host: 127.0.0.1:22"))
        reply = await wire.reply("GET")
        if reply is not None and reply.status < 400:
            raise BrokenError(f"status {reply.status}")
        await wire.try_send(HIDDEN)
        await nothing_more(wire)


@cases.add("get-body", "the body of a GET is never a request")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(target.head("GET", api.HEALTH, f"content-length: {len(HIDDEN)}") + HIDDEN)
        if await wire.reply() is None:
            raise BrokenError("no answer")
        await nothing_more(wire)


@cases.add("refused-body", "the body of a request that is refused early is never a request")
async def _(target: Target) -> None:
    body = HIDDEN * 200
    for lines, path in (
        (("authorization: Bearer wrong", "content-type: application/json"), CHAT),
        (("content-type: text/plain",), CHAT),
        ((), "/nowhere"),
    ):
        async with await Wire.open(target) as wire:
            head = target.head("POST", path, *lines, f"content-length: {len(body)}", key="")
            await wire.send(head)
            await _pause()
            await wire.try_send(body)
            if await wire.reply("POST") is None:
                raise BrokenError(f"no answer to {path}")
            await nothing_more(wire)


@cases.add("too-large-body", "what follows a body that is too large is never a request")
async def _(target: Target) -> None:
    size = target.max_body_bytes + 1
    async with await Wire.open(target) as wire:
        lines = ("content-type: application/json", f"content-length: {size}")
        await wire.send(target.head("POST", CHAT, *lines))
        await wire.try_send(HIDDEN * 100, 2.0)
        expect(await wire.reply("POST"), (413,))
        await nothing_more(wire)


for name, lines in {
    "cl-te": ("content-length: 5", "transfer-encoding: chunked"),
    "te-cl": ("transfer-encoding: chunked", "content-length: 5"),
    "te-space": ("transfer-encoding : chunked",),
    "te-unknown": ("transfer-encoding: xchunked",),
    "te-tab": ("transfer-encoding:\tx, chunked, identity",),
    "te-twice": ("transfer-encoding: chunked", "transfer-encoding: identity"),
    "te-comma": ("transfer-encoding: chunked, chunked",),
    "te-quoted": ('transfer-encoding: "chunked"',),
    "cl-twice": ("content-length: 5", "content-length: 6"),
    "cl-list": ("content-length: 5, 6",),
    "cl-plus": ("content-length: +5",),
    "cl-negative": ("content-length: -5",),
    "cl-hex": ("content-length: 0x5",),
    "cl-inner-space": ("content-length: 5 5",),
    "cl-huge": ("content-length: 99999999999999999999999",),
    "obs-fold": ("x-a: b", " folded: yes", "content-length: 0"),
    "name-space": ("x a: b", "content-length: 0"),
    "name-empty": (": b", "content-length: 0"),
    "name-colonless": ("content-length", "x-a: b"),
    "value-nul": ("x-a: b\0c", "content-length: 0"),
    "value-cr": ("x-a: b\rtransfer-encoding: chunked", "content-length: 0"),
}.items():
    answers(
        name,
        f"a head with {lines[0]!r} is refused, and nothing behind it is read",
        partial(_hidden_behind, lines=lines),
        REFUSED,
        closes=True,
    )

for name, chunks in {
    "chunk-size-overflow": b"fffffffffffffffff\r\n{}",
    "chunk-size-negative": b"-1\r\n{}\r\n0\r\n\r\n",
    "chunk-size-space": b"1 1\r\n{}\r\n0\r\n\r\n",
    "chunk-size-hex-prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "chunk-end-missing": b"2\r\n{}XX0\r\n\r\n",
    "chunk-size-lf": b"2\n{}\n0\n\n",
}.items():
    answers(
        name,
        "a chunk that is not RFC 9112's is refused",
        partial(_chunked, chunks=chunks),
        REFUSED,
        closes=True,
    )


@cases.add("chunk-extension", "an endless chunk extension is cut off")
async def _(target: Target) -> None:
    lines = ("content-type: application/json", "transfer-encoding: chunked")
    await endless(target, target.head("POST", CHAT, *lines) + b"2;a=", (400, 413))


@cases.add("trailers", "trailers are dropped, and what they claim of the body counts nothing")
async def _(target: Target) -> None:
    body = target.chat()
    lines = ("content-type: application/json", "transfer-encoding: chunked", "trailer: x-a")
    request = target.head("POST", CHAT, *lines)
    request += b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    request += b"x-a: b\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    async with await Wire.open(target) as wire:
        await wire.send(request)
        expect(await wire.reply("POST"), (200, 400))
        await nothing_more(wire)
