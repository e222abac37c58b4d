"""An HTTP server inside a running loop: it starts, shares, drains and says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serving.config.connections import ConnectionsConfig
from serving.errors import StackError
from serving.http_protocol import client_of
from serving.listener import Listener


class Slow:
    """Answers as soon as it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.set()
        await self.go_on.wait()
        await hello(scope, receive, send)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@contextlib.asynccontextmanager
async def listening(app: Any = hello, **options: Any) -> AsyncIterator[Listener]:
    listener = Listener(app, options.pop("host", "127.0.0.1"), **options)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


async def get(port: int) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{port}/", timeout=5)


async def test_it_answers_as_soon_as_it_has_started() -> None:
    async with listening() as listener:
        response = await get(listener.port)
    assert response.text == "hello"
    assert "server" not in response.headers


async def test_a_taken_port_is_known_at_once_and_named() -> None:
    async with listening() as listener:
        port = listener.port
        with pytest.raises(StackError) as raised:
            Listener(hello, "127.0.0.1", port)
    assert raised.value.param == "port"
    assert str(port) in raised.value.message
    assert "COMPTOIR_PORT" in raised.value.message


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StackError, match=r"192\.0\.2\.1"):
        Listener(hello, "192.0.2.1")


async def test_several_can_share_a_port_when_all_say_so() -> None:
    async with (
        listening(share_port=True) as first,
        listening(port=first.port, share_port=True) as second,
    ):
        assert first.port == second.port
        assert {(await get(first.port)).status_code for _ in range(10)} == {200}
        with pytest.raises(StackError):
            Listener(hello, "127.0.0.1", first.port)


async def test_a_closed_port_is_free_again() -> None:
    async with listening() as listener:
        port = listener.port
    async with listening(port=port) as again:
        assert (await get(again.port)).text == "hello"


async def test_closing_before_starting_frees_the_port() -> None:
    listener = Listener(hello, "127.0.0.1")
    port = listener.port
    await listener.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


async def test_an_open_request_may_finish_while_no_new_one_is_taken() -> None:
    app = Slow()
    listener = Listener(app, "127.0.0.1")
    await listener.start()
    port = listener.port
    request = asyncio.create_task(get(port))
    await app.begun.wait()
    closing = asyncio.create_task(listener.close(grace_s=5))
    await asyncio.sleep(0.3)
    with pytest.raises(httpx.TransportError):
        await get(port)
    assert not closing.done()
    app.go_on.set()
    assert (await request).text == "hello"
    await asyncio.wait_for(closing, 2)


async def test_a_request_that_does_not_finish_is_cut_after_the_grace() -> None:
    app = Slow()
    listener = Listener(app, "127.0.0.1")
    await listener.start()
    request = asyncio.create_task(get(listener.port))
    await app.begun.wait()
    await asyncio.wait_for(listener.close(grace_s=0.2), 4)
    (outcome,) = await asyncio.gather(request, return_exceptions=True)
    assert isinstance(outcome, httpx.TransportError) or outcome.status_code >= 500


async def test_the_processs_signals_stay_as_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with listening():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
async def test_it_listens_on_ipv6_too() -> None:
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback")
    async with listening(host="::1") as listener, httpx.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{listener.port}/")).text == "hello"


async def test_what_is_not_http_is_a_400() -> None:
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nNot A Header\r\n\r\n")
        status = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    assert status.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("part", [b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1000])
async def test_headers_without_end_are_cut_off(part: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the headers never end")

    listener = Listener(app, "127.0.0.1")
    await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"POST / HTTP/1.1\r\nlong: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                writer.write(part)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            assert b"431" in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    finally:
        await listener.close()


async def test_a_connection_that_sends_nothing_is_closed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing was sent")

    listener = Listener(app, "127.0.0.1", connections=ConnectionsConfig(head_timeout_s=0.05))
    await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()
    finally:
        await listener.close()


async def test_connections_whose_other_end_vanishes_do_not_last() -> None:
    async with listening() as listener:
        probe = listener._socket
        assert probe.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, count = (
            probe.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + every * count <= 30
        # It would end connections of clients that are there and read slowly.
        assert not probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_little_of_an_answer_is_buffered_for_a_client_that_does_not_read() -> None:
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client, written = client_of(scope), 0
        while not client.is_slow and written < 16 * 1024 * 1024:
            client.write(b"x" * 16_384)
            written += 16_384
            # The socket may be written to meanwhile.
            await asyncio.sleep(0)
        taken.set_result(written)
        await asyncio.sleep(60)

    listener = Listener(app, "127.0.0.1")
    await listener.start()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", listener.port))
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert await taken < 1024 * 1024
    await listener.close()


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "possible"),
    [(1024, 65_536, 65_536, 32_640), (4096, 4096, None, 1920), (64, 64, None, 16)],
)
def test_as_many_files_may_be_open_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, possible: int
) -> None:
    said: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr("resource.setrlimit", lambda kind, limits: said.append(limits))
    table = Listener(
        hello, "127.0.0.1", connections=ConnectionsConfig(max_connections=50_000)
    ).table
    assert said == ([(raised, raised)] if raised else [])
    assert table._max == possible
