"""Connections are kept while they are good, a bounded number of them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from serving.discovery.directory import Replica
from serving.gateway.upstream import ReplicaGoneError, Upstream
from tests.gateway.test_upstream import OK, Server, _head, ask, serving


class Closing:
    """A replica that closes each connection after its first answer, when it is told to, without a word."""

    def __init__(self) -> None:
        self.requests = 0
        self.open: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.append(writer)
        while await _head(reader):
            await reader.readexactly(7)
            self.requests += 1
            writer.write(OK)

    def close(self) -> None:
        """In the kernel, before the gateway's event loop can hear of it."""
        for writer in self.open:
            writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            writer.transport.abort()
        self.open.clear()


async def test_a_request_on_a_connection_that_was_just_closed_is_sent_once_more() -> None:
    replica_process = Closing()
    server = await asyncio.start_server(replica_process.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=5)
    replica = Replica("r", f"http://127.0.0.1:{port}", "t")
    assert await ask(upstream, replica) == b"ok"
    asking = asyncio.create_task(ask(upstream, replica))
    replica_process.close()
    assert await asyncio.wait_for(asking, 2) == b"ok"
    assert replica_process.requests == 2
    await upstream.stop()
    server.close()


async def test_a_replica_that_took_the_request_and_hung_up_gets_it_only_once() -> None:
    server = Server(OK, b"")
    async with serving(server) as (upstream, replica):
        await ask(upstream, replica)
        with pytest.raises(ReplicaGoneError) as raised:
            await ask(upstream, replica)
    assert raised.value.sent
    assert len(server.requests) == 2


async def test_few_connections_are_kept_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.pool.MAX_IDLE", 3)
    server = Server()
    async with serving(server) as (upstream, replica):
        await asyncio.gather(*(ask(upstream, replica) for _ in range(8)))
        assert server.connections == 8
        await asyncio.gather(*(ask(upstream, replica) for _ in range(8)))
    assert server.connections == 13


async def test_few_are_kept_for_all_replicas_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.pool.MAX_IDLE_IN_ALL", 1)
    one, two = Server(), Server()
    async with serving(one) as (upstream, first), serving(two) as (_, second):
        for _ in range(2):
            await ask(upstream, first)
            await ask(upstream, second)
    assert (one.connections, two.connections) == (1, 2)
