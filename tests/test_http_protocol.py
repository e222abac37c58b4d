"""The short way to a client's socket: pieces arrive as one body, and a client that goes is noticed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from serving.http_protocol import client_of
from serving.listener import Listener


@contextlib.asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    listener = Listener(app, "127.0.0.1")
    await listener.start()
    try:
        yield listener.port
    finally:
        await listener.close()


async def start(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def end(send: Any) -> None:
    await send({"type": "http.response.body", "body": b""})


async def test_pieces_written_between_start_and_end_are_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        for number in range(100):
            client_of(scope).write(b"%d," % number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        await end(send)

    async with listening(app) as port, httpx.AsyncClient() as client:
        for _ in range(2):  # the connection stays good for the next request
            response = await client.get(f"http://127.0.0.1:{port}/")
            assert response.text == "".join(f"{number}," for number in range(100))


async def test_a_client_that_goes_is_noticed_at_once_and_writing_is_harmless() -> None:
    lost = asyncio.Event()
    seen: dict[str, bool] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client = client_of(scope)
        client.on_lost = lost.set
        seen["before"] = client.is_lost
        await start(send)
        client.write(b"first")
        await lost.wait()
        client.on_lost = None
        seen["after"] = client.is_lost
        client.write(b"nobody reads this")

    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()
        await asyncio.wait_for(lost.wait(), 2)
    assert seen == {"before": False, "after": True}


async def test_a_client_that_does_not_read_is_slow_until_it_does() -> None:
    writable = asyncio.Event()
    was_slow = asyncio.Event()
    block = b"x" * 65536

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client = client_of(scope)
        client.on_writable = writable.set
        await start(send)
        for _ in range(1000):
            client.write(block)
            if client.is_slow:
                break
        was_slow.set()
        await writable.wait()
        assert not client.is_slow
        client.on_writable = None
        await end(send)

    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # asyncio reads ahead of who asks it to.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await asyncio.wait_for(was_slow.wait(), 5)
        assert not writable.is_set()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        body = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert writable.is_set()
    assert body.endswith(b"0\r\n\r\n")
