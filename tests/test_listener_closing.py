"""A listener that goes away: nobody at the door is reset, and nobody inside is cut without a word."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
import uvloop

from serving.http_protocol import client_of
from serving.listener import Listener
from tests.http.wire import get

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    """asyncio's own loop, and the one that gateways and replicas run on."""
    return request.param()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
    )
    await send({"type": "http.response.body", "body": b"hello"})


async def started(app: Any = hello) -> Listener:
    listener = Listener(app, "127.0.0.1")
    await listener.start()
    return listener


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(get())
    return await asyncio.wait_for(reader.readuntil(b"hello"), 3)


async def test_a_lame_duck_answers_and_says_good_bye() -> None:
    listener = await started()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    assert b"connection: close" not in await ask(reader, writer)
    listener.begin_drain()
    assert b"connection: close" in await ask(reader, writer)
    assert await asyncio.wait_for(reader.read(), 3) == b""
    # New ones are still let in.
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    assert b"connection: close" in await ask(reader, writer)
    assert listener.listens
    writer.close()
    await listener.close()
    assert not listener.listens


async def test_connections_that_wait_to_be_accepted_are_answered_not_reset() -> None:
    listener = await started()
    clients = []
    for _ in range(20):
        # The loop does not run meanwhile, so nobody accepts.
        client = socket.create_connection(("127.0.0.1", listener.port))
        client.sendall(get())
        client.setblocking(False)
        clients.append(client)
    closing = asyncio.create_task(listener.close(grace_s=3))
    loop = asyncio.get_running_loop()
    for client in clients:
        answer = await asyncio.wait_for(loop.sock_recv(client, 1000), 3)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        client.close()
    await asyncio.wait_for(closing, 3)


async def test_idle_connections_end_at_once_and_open_requests_do_not() -> None:
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            begun.set()
            await go_on.wait()
        await hello(scope, receive, send)

    listener = await started(app)
    idle, idle_writer = await asyncio.open_connection("127.0.0.1", listener.port)
    await ask(idle, idle_writer)
    busy, busy_writer = await asyncio.open_connection("127.0.0.1", listener.port)
    busy_writer.write(get("/slow"))
    await begun.wait()
    closing = asyncio.create_task(listener.close(grace_s=3))
    assert await asyncio.wait_for(idle.read(), 1) == b""
    assert not closing.done()
    go_on.set()
    assert b"hello" in await asyncio.wait_for(busy.read(), 3)
    for writer in (idle_writer, busy_writer):
        writer.close()
    await asyncio.wait_for(closing, 3)


async def test_a_request_that_does_not_end_can_say_so_before_it_is_cut() -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client = client_of(scope)
        shutdown = asyncio.Event()
        client.on_shutdown = shutdown.set
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client.write(b"data: 1\n\n")
        begun.set()
        await shutdown.wait()
        assert client.is_cut
        assert not client.is_lost
        await send({"type": "http.response.body", "body": b"data: sorry\n\n"})

    listener = await started(app)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(get())
    await begun.wait()
    await asyncio.wait_for(listener.close(grace_s=0.05), 3)
    assert (await reader.read()).endswith(b"data: sorry\n\n\r\n0\r\n\r\n")
    writer.close()


async def test_a_request_that_has_not_begun_gets_a_503() -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    listener = await started(app)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(get())
    await begun.wait()
    await asyncio.wait_for(listener.close(grace_s=0.05), 4)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting_down" in answer
    writer.close()


async def test_one_that_does_not_listen_to_anything_is_cut() -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client_of(scope).on_shutdown = lambda: None
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)

    listener = await started(app)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(get())
    await begun.wait()
    await asyncio.wait_for(listener.close(), 2)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert not listener.table.connections


async def test_a_connection_that_just_came_may_still_ask() -> None:
    listener = await started()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(listener.close(grace_s=3))
    await asyncio.sleep(0.05)
    assert b"hello" in await ask(reader, writer)
    writer.close()
    await asyncio.wait_for(closing, 3)
