"""Clients that send slowly, read slowly, leave, or only hold connections open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from loadtests.hostile.case import Cases, expect, is_well
from loadtests.hostile.target import CHAT, NotApplicableError, Target
from loadtests.hostile.wire import BrokenError, Wire
from serving import api

cases = Cases("slow")
# Beyond the endpoint's own limit.
HEALTH = api.HEALTH.encode()
MARGIN_S = 5.0
# More than the kernels at both ends buffer.
LONG_TOKENS = 100_000
# Requests whose answers are more than that, even where one is only a line.
MOST_UNREAD = 200_000


async def _trickle(target: Target, first: bytes, piece: bytes, every_s: float = 0.2) -> None:
    """Send a piece now and then, for ever; the connection must be cut in time."""
    async with await Wire.open(target) as wire:
        await wire.send(first)
        await _must_be_cut(target, wire, piece, every_s)


async def _must_be_cut(target: Target, wire: Wire, piece: bytes, every_s: float = 0.2) -> None:
    async def send_on() -> None:
        for _ in range(int((target.cut_s + MARGIN_S) / every_s)):
            if not await wire.try_send(piece):
                return
            await asyncio.sleep(every_s)

    sending = asyncio.ensure_future(send_on())
    try:
        await wire.cut_after(target.cut_s + MARGIN_S)
    finally:
        sending.cancel()


@cases.add("silent", "a connection on which nothing comes is cut")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.cut_after(target.cut_s + MARGIN_S)


@cases.add("head-trickle", "a head that trickles is cut")
async def _(target: Target) -> None:
    await _trickle(target, b"GET %b HTTP/1.1\r\n" % HEALTH, b"x-a: b\r\n")


@cases.add("lines-trickle", "empty lines before a head do not put its deadline off")
async def _(target: Target) -> None:
    await _trickle(target, b"", b"\r\n")


@cases.add("second-head-trickle", "so is the second head of a connection")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(target.head("GET", api.HEALTH))
        expect(await wire.reply(), (200,))
        await wire.send(b"GET %b HTTP/1.1\r\n" % HEALTH)
        await _must_be_cut(target, wire, b"x-a: b\r\n")


def _body_head(target: Target, key: str | None = None, *lines: str) -> bytes:
    lines = lines or ("content-length: 1000000",)
    return target.head("POST", CHAT, "content-type: application/json", *lines, key=key)


@cases.add("body-never", "a body that never comes is cut")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(_body_head(target))
        await wire.cut_after(target.cut_s + MARGIN_S)


@cases.add("body-trickle", "a body that trickles is cut")
async def _(target: Target) -> None:
    await _trickle(target, _body_head(target), b" ")


@cases.add("body-trickle-chunked", "so is one in chunks of one byte")
async def _(target: Target) -> None:
    await _trickle(target, _body_head(target, None, "transfer-encoding: chunked"), b"1\r\n \r\n")


@cases.add("body-trickle-refused", "so is one of a request that was refused already")
async def _(target: Target) -> None:
    if not target.key:
        raise NotApplicableError("the endpoint wants no key")
    await _trickle(target, _body_head(target, "wrong"), b" ")


@cases.add("trailer-trickle", "trailers that trickle are cut")
async def _(target: Target) -> None:
    body = target.chat()
    head = _body_head(target, None, "transfer-encoding: chunked")
    await _trickle(target, head + b"%x\r\n%b\r\n0\r\n" % (len(body), body), b"x-a: b\r\n")


@cases.add("idle", "a connection that is not used again is closed")
async def _(target: Target) -> None:
    async with await Wire.open(target) as wire:
        await wire.send(target.head("GET", api.HEALTH))
        expect(await wire.reply(), (200,))
        await wire.cut_after(target.cut_s + MARGIN_S)


# ---- those that do not read ------------------------------------------------------------------------------


def _long(target: Target) -> bytes:
    if not target.long_answers:
        raise NotApplicableError("its answers are too short to fill the kernel's buffers")
    return target.post(target.chat(stream=True, max_tokens=LONG_TOKENS))


async def _stalls(target: Target, wire: Wire) -> None:
    """The stream must be given up although nothing is read; then what was buffered is all that comes."""
    await asyncio.sleep(target.cut_s + 1)
    said = await wire.rest(30.0)
    if said.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
        raise BrokenError("the stream was kept for a client that did not read")


@cases.add("never-reads", "a client that does not read loses its stream")
async def _(target: Target) -> None:
    async with await Wire.open(target, receive_buffer=4096) as wire:
        await wire.send(_long(target))
        await _stalls(target, wire)


@cases.add("reads-a-byte", "so does one that reads a byte a second")
async def _(target: Target) -> None:
    async with await Wire.open(target, receive_buffer=4096) as wire:
        await wire.send(_long(target))
        ends_s = time.monotonic() + target.cut_s + 1
        while time.monotonic() < ends_s:
            await wire._read(1)
            await asyncio.sleep(1)
        await _stalls(target, wire)


@cases.add(
    "many-never-read", "two hundred that do not read leave others' slots alone", is_crowd=True
)
async def _(target: Target) -> None:
    request = _long(target)
    wires = [await Wire.open(target, receive_buffer=4096) for _ in range(200)]
    try:
        for wire in wires:
            await wire.send(request)
        await asyncio.sleep(target.cut_s + MARGIN_S)
        await is_well(target)
    finally:
        for wire in wires:
            wire.reset()


@cases.add(
    "pipelines-and-never-reads", "nor does a client get room by asking again and again unread"
)
async def _(target: Target) -> None:
    request = target.head("GET", api.MODELS) * 100
    async with await Wire.open(target, receive_buffer=4096) as wire:
        # First the kernels' buffers fill, then the limit runs. How fast they fill is the machine's affair.
        for _ in range(MOST_UNREAD // 100):
            if not await wire.try_send(request, 5.0):
                return
        raise BrokenError("requests were taken for ever although no answer was read")


# ---- those that leave ------------------------------------------------------------------------------------


async def _leave(target: Target, leave: Callable[[Wire], None], count: int = 50) -> None:
    for index in range(count):
        wire = await Wire.open(target)
        await wire.send(target.post(target.chat(stream=bool(index % 2), max_tokens=50)))
        await asyncio.sleep(0.002 * (index % 25))
        leave(wire)
    await is_well(target)


@cases.add("leaves", "fifty that leave at any moment hurt nobody", is_crowd=True)
async def _(target: Target) -> None:
    await _leave(target, Wire.close)


@cases.add("resets", "fifty that leave with a reset hurt nobody", is_crowd=True)
async def _(target: Target) -> None:
    await _leave(target, Wire.reset)


@cases.add("half-bodies", "fifty that leave in the middle of their body hurt nobody", is_crowd=True)
async def _(target: Target) -> None:
    for index in range(50):
        wire = await Wire.open(target)
        await wire.send(_body_head(target) + b"x" * index * 1000)
        wire.reset() if index % 2 else wire.close()
    await is_well(target)


@cases.add("connects", "five hundred connections that come and go hurt nobody", is_crowd=True)
async def _(target: Target) -> None:
    for index in range(500):
        wire = await Wire.open(target)
        wire.reset() if index % 2 else wire.close()
    await is_well(target)


@cases.add("silent-connections", "a crowd without a key keeps nobody out", is_crowd=True)
async def _(target: Target) -> None:
    wires: list[Wire] = []
    try:
        for _ in range(target.silent_connections):
            try:
                wire = await Wire.open(target)
            except (OSError, TimeoutError):
                # Refused: as good as cut.
                continue
            wires.append(wire)
            await wire.try_send(b"GET %b HTTP/1.1\r\nx-a: " % HEALTH)
        for _ in range(5):
            await is_well(target)
    finally:
        for wire in wires:
            wire.close()
