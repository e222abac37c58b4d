"""HTTP as it is written: versions, methods, targets, headers, Expect, HEAD, half-close, pipelines."""

from __future__ import annotations

import asyncio
import json
from functools import partial

from loadtests.hostile.case import Cases, endless, expect, nothing_more, one_answer
from loadtests.hostile.target import CHAT, Target
from loadtests.hostile.wire import BrokenError, Wire
from serving import api

cases = Cases("http")
answers = cases.answers
HEALTH, MODELS = api.HEALTH.encode(), api.MODELS.encode()
GONE = (400, 404, 405, 408, 413, 414, 417, 421, 426, 431, 501, 505)


def _get(target: Target, path: str = api.HEALTH, *lines: str) -> bytes:
    return target.head("GET", path, *lines)


answers(
    "no-host",
    "RFC 9112, 3.2: 400",
    lambda _: b"GET %b HTTP/1.1\r\n\r\n" % HEALTH,
    (400,),
    closes=True,
    method="GET",
)
answers(
    "two-hosts",
    "RFC 9112, 3.2: 400",
    lambda _: b"GET %b HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n" % HEALTH,
    (400,),
    closes=True,
    method="GET",
)
answers(
    "method-unknown",
    "a method that nobody knows is refused",
    lambda target: target.head("BREW", api.HEALTH),
    (400, 405, 501),
    method="GET",
)
answers(
    "method-trace",
    "TRACE is refused",
    lambda target: target.head("TRACE", api.HEALTH),
    (400, 405, 501),
    method="GET",
)
answers(
    "method-wrong",
    "GET of an inference endpoint is 405",
    lambda target: _get(target, CHAT),
    (405,),
    method="GET",
)
answers(
    "options-star",
    "OPTIONS * is answered, not crashed on",
    lambda target: target.head("OPTIONS", "*"),
    (200, 204, 400, 404, 405, 501),
    method="GET",
)
for name, path in {
    "path-double-slash": "/" + api.MODELS,
    "path-nul": api.MODELS + "%00",
    "path-dots": "/v1/../status",
    "path-encoded-dots": "/v1/%2e%2e/status",
    "path-backslash": "/v1\\models",
    "path-long": "/" + "a" * 60_000,
    "path-unknown": "/admin",
}.items():
    answers(
        name,
        "a path that does not exist is 404 (or 400)",
        partial(_get, path=path),
        (400, 404, 414, 431),
        method="GET",
    )
answers(
    "path-absolute",
    "an absolute target is not fetched",
    lambda target: target.head("GET", "http://127.0.0.1:1/health"),
    (200, 400, 404, 421),
    method="GET",
)


@cases.add("head-huge", "a head without an end is cut off")
async def _(target: Target) -> None:
    await endless(target, b"GET %b HTTP/1.1\r\nhost: x\r\nx-a: " % HEALTH, GONE)


@cases.add("headers-many", "ten thousand headers are refused")
async def _(target: Target) -> None:
    lines = [f"x-{index}: {index}" for index in range(10_000)]
    async with await Wire.open(target) as wire:
        await wire.try_send(_get(target, api.HEALTH, *lines))
        reply = await wire.reply()
        if reply is not None and reply.status not in GONE:
            raise BrokenError(f"status {reply.status}")


for name, request in {
    "version-0.9": b"GET %b\r\n\r\n" % HEALTH,
    "version-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version-1.2": b"GET %b HTTP/1.2\r\nhost: x\r\n\r\n" % HEALTH,
    "version-3": b"GET %b HTTP/3.0\r\nhost: x\r\n\r\n" % HEALTH,
    "garbage": bytes(range(256)) * 4,
    "tls-hello": bytes.fromhex("16030100a5010000a10303") + b"\x11" * 160,
    "proxy-v1-untrusted": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET %b HTTP/1.1\r\nhost: x\r\n\r\n"
    % HEALTH,
    "proxy-v2-untrusted": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + b"\1" * 12
    + b"GET / HTTP/1.1\r\n\r\n",
}.items():

    @cases.add(name, "what is not HTTP/1.1 or 1.0 is refused, and the connection ends")
    async def _(target: Target, request: bytes = request) -> None:
        async with await Wire.open(target) as wire:
            await wire.try_send(request)
            said = await wire.rest(target.cut_s + 5)
            if b" 200 " in said[:16]:
                raise BrokenError("it was answered with 200")


@cases.add("bare-lf", "lines that end in LF only give one answer at most")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(
            b"GET %b HTTP/1.1\nhost: x\n\nGET %b HTTP/1.1\nhost: x\n\n" % (HEALTH, MODELS)
        )
        reply = await wire.reply()
        if reply is not None and reply.status != 400:
            raise BrokenError(f"status {reply.status}")
        await nothing_more(wire, closes=True)


@cases.add("expect-continue", "100 comes before the body is sent, then the answer")
async def _(target: Target) -> None:
    body = target.chat()
    lines = (
        "content-type: application/json",
        f"content-length: {len(body)}",
        "expect: 100-continue",
    )
    async with await Wire.open(target) as wire:
        await wire.send(target.head("POST", CHAT, *lines))
        answer = asyncio.ensure_future(wire.reply("POST"))
        await asyncio.sleep(0.3)
        await wire.send(body)
        reply = await answer
        expect(reply, (200,))
        if reply is None or reply.interim != [100]:
            raise BrokenError("there was no 100")


@cases.add("expect-refused", "a request that is refused by its head is answered without its body")
async def _(target: Target) -> None:
    lines = ("content-type: application/json", "content-length: 100000", "expect: 100-continue")
    async with await Wire.open(target) as wire:
        await wire.send(target.head("POST", CHAT, *lines, key="wrong" if target.key else None))
        if not target.key:
            return
        reply = await wire.reply("POST", 3.0)
        expect(reply, (401,))


answers(
    "expect-unknown",
    "an expectation that nobody knows is 417",
    lambda target: _get(target, api.HEALTH, "expect: tea"),
    (417,),
    method="GET",
)


@cases.add("head-method", "HEAD is GET without a body")
async def _(target: Target) -> None:
    for path in (api.HEALTH, api.MODELS):
        async with await Wire.open(target) as wire:
            await wire.send(target.head("HEAD", path))
            reply = await wire.reply("HEAD")
            expect(reply, (200,))
            await nothing_more(wire)


@cases.add("http10", "an HTTP/1.0 client gets its answer and the end of the connection")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(b"GET %b HTTP/1.0\r\n\r\n" % HEALTH)
        reply = await wire.reply()
        expect(reply, (200,))
        await nothing_more(wire, closes=True)


@cases.add(
    "http10-stream", "a stream to an HTTP/1.0 client is not chunked, and ends with the connection"
)
async def _(target: Target) -> None:
    request = target.post(target.chat(stream=True)).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    async with await Wire.open(target) as wire:
        await wire.send(request)
        said = await wire.rest()
    head, _, body = said.partition(b"\r\n\r\n")
    if b"transfer-encoding" in head.lower():
        raise BrokenError("chunked for an HTTP/1.0 client")
    if not body.startswith(b"data: ") or not body.endswith(b"data: [DONE]\n\n"):
        raise BrokenError("the stream is not whole")


@cases.add("http10-keep-alive", "an HTTP/1.0 client may keep its connection")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        for _ in range(2):
            await wire.send(b"GET %b HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" % HEALTH)
            reply = await wire.reply()
            if reply is None:
                return
            expect(reply, (200,))


@cases.add("half-close", "a client that has closed its sending side gets its answer")
async def _(target: Target) -> None:
    for stream in (False, True):
        async with await Wire.open(target) as wire:
            await wire.send(target.post(target.chat(stream=stream), "connection: close"))
            wire.finish_sending()
            expect(await wire.reply("POST"), (200,))


@cases.add("pipeline", "pipelined requests are answered in order")
async def _(target: Target) -> None:
    paths = (api.HEALTH, "/nowhere", api.HEALTH, api.MODELS, api.HEALTH)
    async with await Wire.open(target) as wire:
        await wire.send(b"".join(_get(target, path) for path in paths))
        for path in paths:
            expect(await wire.reply(), (404,) if path == "/nowhere" else (200,))
        await nothing_more(wire)


@cases.add(
    "pipeline-after-large", "a request that shares a read with a large body is answered after it"
)
async def _(target: Target) -> None:
    messages = [{"role": "user", "content": "x" * 150_000}]
    body = json.dumps({"model": target.model, "messages": messages, "max_tokens": 1}).encode()
    async with await Wire.open(target) as wire:
        await wire.send(target.post(body) + _get(target))
        expect(await wire.reply("POST"), (200, 400))
        expect(await wire.reply(), (200,))
        await nothing_more(wire)


@cases.add(
    "pipeline-flood",
    "a thousand pipelined requests are answered in order, or the connection ends",
    is_crowd=True,
)
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        sending = asyncio.ensure_future(wire.try_send(_get(target) * 1000, 30.0))
        for index in range(1000):
            reply = await wire.reply(timeout_s=30.0)
            if reply is None:
                break
            if reply.status != 200:
                raise BrokenError(f"answer {index} has status {reply.status}")
        await sending


@cases.add("garbage-in-stream", "what a client says during its stream is never written into it")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(target.post(target.chat(stream=True, max_tokens=20)))
        answer = asyncio.ensure_future(wire.reply("POST", 30.0))
        await asyncio.sleep(0.1)
        await wire.try_send(b"\0\1garbage\r\n\r\n")
        reply = await answer
        if reply is None or reply.status != 200:
            raise BrokenError("the stream did not begin")
        if b"HTTP/1.1 400" in reply.body:
            raise BrokenError("a raw 400 stands in the stream")
        if reply.is_whole and not reply.body.endswith(b"data: [DONE]\n\n"):
            raise BrokenError("the stream ended as if it were whole")


@cases.add("request-in-stream", "a request that is sent during a stream is answered after it")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(target.post(target.chat(stream=True, max_tokens=20)))
        answer = asyncio.ensure_future(wire.reply("POST", 30.0))
        await asyncio.sleep(0.1)
        await wire.send(_get(target))
        reply = await answer
        expect(reply, (200,))
        assert reply is not None  # noqa: S101
        if not reply.body.endswith(b"data: [DONE]\n\n"):
            raise BrokenError("the stream is not whole")
        expect(await wire.reply(), (200,))


@cases.add("header-injection", "what a client writes into a header comes back in none")
async def _(target: Target) -> None:
    reply = await one_answer(
        target,
        target.post(target.chat(), "x-request-id: evil", "x-comptoir-session: evil"),
        (200,),
    )
    if any("evil" in value for value in reply.headers.values()):
        raise BrokenError("a header repeats it")


@cases.add(
    "internal-headers",
    "headers that gateways and replicas say to each other mean nothing from a client",
)
async def _(target: Target) -> None:
    spoofed = (
        *("x-comptoir-token: a", "x-comptoir-queued: 999999999", "x-comptoir-usage: 1 1 1"),
        *("x-comptoir-key: a", "x-forwarded-for: 10.0.0.1", "forwarded: for=10.0.0.1"),
    )
    await one_answer(target, target.post(target.chat(), *spoofed), (200,))
