"""A client that does not read hurts nobody: neither the next request, nor the replica, nor others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import orjson
import pytest

from serving.config.admission import AdmissionConfig
from serving.discovery.directory import Replica
from serving.gateway.upstream import Upstream
from serving.settings import GatewayConfig
from tests.gateway.conftest import Site, SiteFactory

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"word " * 200 + b'"}}]}\n\n'
MANY = 3000


class Flood:
    """A replica whose answers are about 3 MB long: `events` of a stream, or one whole body."""

    def __init__(self) -> None:
        self.open: set[asyncio.StreamWriter] = set()
        self.body = EVENT * MANY
        self.endless = False

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                body = orjson.loads(await reader.readexactly(length))
                await self._answer(writer, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        finally:
            self.open.discard(writer)

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, object]) -> None:
        if not body["stream"]:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % len(self.body)
            )
            writer.write(self.body)
        elif body["max_tokens"] == 1:
            writer.write(_head() + _chunk(EVENT) + b"0\r\n\r\n")
        else:
            writer.write(_head() + _chunk(self.body) + (b"" if self.endless else b"0\r\n\r\n"))
        await writer.drain()


def _head() -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _body(*, stream: bool, max_tokens: int = 100) -> dict[str, object]:
    return {
        "model": "fake",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": stream,
        "max_tokens": max_tokens,
    }


class Reader:
    """A client with a small window that reads only when it is told to."""

    def __init__(self, url: str, body: dict[str, object]) -> None:
        parts = httpx.URL(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(5)
        self._socket.connect((parts.host, parts.port))
        encoded = orjson.dumps(body)
        self._socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(encoded), encoded)
        )

    async def read(self, until: bytes) -> bytes:
        """Everything up to these bytes, or to the end."""
        self._socket.setblocking(False)
        loop, got = asyncio.get_running_loop(), bytearray()
        while until not in got[-len(until) - 70_000 :]:
            piece = await asyncio.wait_for(loop.sock_recv(self._socket, 65536), 5)
            if not piece:
                break
            got += piece
        return bytes(got)

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def flooded(site: Site) -> AsyncIterator[Flood]:
    # Accepted connections inherit it: the kernel takes little from a client that does not read.
    site.front._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    flood = Flood()
    server = await asyncio.start_server(flood.take, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    site.models["fake"] = replace(
        site.models["fake"], replicas=(Replica("flood", url, "door-token"),)
    )
    try:
        yield flood
    finally:
        server.close()
        for writer in list(flood.open):
            writer.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def impatient(site: Site, pause_s: float) -> None:
    """Let an answer be left unread for this long only."""
    upstream = site.services.upstream
    assert isinstance(upstream, Upstream)
    upstream._pause_timeout_s = pause_s


def slots_in_use(site: Site) -> int:
    return sum(one.open for one in site.services.admission.snapshots())


async def test_the_next_request_is_answered_after_one_whose_client_was_slow_to_the_end(
    make_site: SiteFactory,
) -> None:
    site = await make_site(config=GatewayConfig(response_timeout_s=2.0))
    async with flooded(site):
        for _ in range(3):
            slow = Reader(site.url, _body(stream=True))
            await until(lambda: site.services.forwarder.in_flight["flood"] == 1)
            await asyncio.sleep(0.05)
            assert (await slow.read(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
            slow.close()
            good = await site.client.post(
                "/v1/chat/completions", json=_body(stream=True, max_tokens=1)
            )
            assert (good.status_code, good.content) == (200, EVENT)


async def test_who_never_reads_loses_the_slot_and_nobody_is_blamed(make_site: SiteFactory) -> None:
    """Whatever the listener does: it may take what hardly moves for a client that reads."""
    config = GatewayConfig(
        admission=AdmissionConfig(max_open_per_replica=10, min_open_per_replica=1)
    )
    site = await make_site(config=config)
    impatient(site, 0.3)
    async with flooded(site) as flood:
        unread = [Reader(site.url, _body(stream=True)) for _ in range(10)]
        await until(lambda: slots_in_use(site) == 10)
        # Somebody else waits for a slot, and gets it.
        good = await site.client.post("/v1/chat/completions", json=_body(stream=True, max_tokens=1))
        assert good.status_code == 200
        await until(lambda: slots_in_use(site) == 0)
        assert not site.services.forwarder.in_flight
        # Of those that were cut off nothing is left.
        await until(lambda: len(flood.open) <= 1)
        breaker = site.services.forwarder.breakers.replica("flood")
        assert breaker.allows(0.0)
        for client in unread:
            client.close()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_slot_is_free_when_the_engine_has_said_everything(
    make_site: SiteFactory, stream: bool
) -> None:
    site = await make_site()
    async with flooded(site) as flood:
        flood.body = EVENT * 200
        slow = Reader(site.url, _body(stream=stream))
        await until(lambda: len(flood.open) == 1)
        await until(lambda: slots_in_use(site) == 0)
        assert EVENT[:40] in await slow.read(EVENT)
        slow.close()


async def test_a_long_answer_that_is_not_streamed_passes_through(make_site: SiteFactory) -> None:
    site = await make_site()
    async with flooded(site) as flood:
        answer = await site.client.post("/v1/chat/completions", json=_body(stream=False))
        assert answer.status_code == 200
        assert answer.content == flood.body
        assert "content-length" not in answer.headers
        assert answer.headers["content-type"] == "application/json"


async def test_a_long_answer_that_breaks_is_not_taken_for_a_whole_one(
    make_site: SiteFactory,
) -> None:
    site = await make_site()
    async with flooded(site) as flood:

        async def half(writer: asyncio.StreamWriter, body: dict[str, object]) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n" + flood.body)
            await writer.drain()
            writer.close()

        flood._answer = half  # type: ignore[method-assign]
        with pytest.raises(httpx.RemoteProtocolError):
            await site.client.post("/v1/chat/completions", json=_body(stream=False))
    await until(lambda: slots_in_use(site) == 0)
