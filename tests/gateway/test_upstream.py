"""The pool: connections are kept while they are good, and a failure says whether another may be asked."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serving.discovery.directory import Replica
from serving.errors import EngineTimeoutError
from serving.gateway.upstream import LateError, ReplicaBrokeError, ReplicaGoneError, Upstream

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def unplug(sock: socket.socket) -> None:
    """Let the kernel drop everything that comes for this socket, as if its machine had lost its network."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(drop))
    so_attach_filter = 26
    sock.setsockopt(socket.SOL_SOCKET, so_attach_filter, program)


class Server:
    """A scripted replica: one reply per request, None hangs, b'' closes."""

    def __init__(self, *replies: bytes | None) -> None:
        self._replies = list(replies)
        self.requests: list[bytes] = []
        self.connections = 0
        self.sockets: list[socket.socket] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.sockets.append(writer.get_extra_info("socket"))
        while head := await _head(reader):
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            self.requests.append(head + await reader.readexactly(length))
            reply = self._replies.pop(0) if self._replies else OK
            if reply is None:
                await asyncio.sleep(60)
            if not reply:
                break
            writer.write(reply)
        writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


@asynccontextmanager
async def serving(
    server: Server, timeout_s: float = 5.0
) -> AsyncIterator[tuple[Upstream, Replica]]:
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=timeout_s)
    try:
        yield upstream, Replica("r", f"http://127.0.0.1:{port}", "door-token")
    finally:
        await upstream.stop()
        listener.close()


async def ask(upstream: Upstream, replica: Replica) -> bytes:
    answer = await upstream.post(replica, "/v1/x", b'{"a":1}', "id-1")
    try:
        return await answer.rest()
    finally:
        answer.close()
        answer.close()


async def test_a_request_carries_what_the_door_wants() -> None:
    server = Server()
    async with serving(server) as (upstream, replica):
        assert await ask(upstream, replica) == b"ok"
    (request,) = server.requests
    assert request.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"\r\nx-comptoir-token: door-token\r\n" in request
    assert b"\r\nx-request-id: id-1\r\n" in request
    assert request.endswith(b'\r\n\r\n{"a":1}')


async def test_one_connection_serves_many_requests() -> None:
    server = Server()
    async with serving(server) as (upstream, replica):
        for _ in range(5):
            await ask(upstream, replica)
        await asyncio.gather(*(ask(upstream, replica) for _ in range(3)))
    assert server.connections == 3


async def test_an_answer_left_early_costs_its_connection() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    server = Server(half)
    async with serving(server) as (upstream, replica):
        answer = await upstream.post(replica, "/v1/x", b"{}", "id")
        answer.close()
        assert await ask(upstream, replica) == b"ok"
    assert server.connections == 2


async def test_a_connection_that_has_been_idle_too_long_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    async with serving(server) as (upstream, replica):
        await ask(upstream, replica)
        monkeypatch.setattr("serving.gateway.pool.KEEP_ALIVE_S", 0.0)
        await ask(upstream, replica)
    assert server.connections == 2


async def test_a_connection_that_the_replica_closed_is_not_used() -> None:
    server = Server(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
    async with serving(server) as (upstream, replica):
        assert [await ask(upstream, replica) for _ in range(2)] == [b"ok", b"ok"]
    assert server.connections == 2


async def test_a_refused_connection_has_sent_nothing() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        replica = Replica("r", f"http://127.0.0.1:{probe.getsockname()[1]}", "t")
        upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=1)
        with pytest.raises(ReplicaGoneError) as raised:
            await upstream.post(replica, "/v1/x", b"{}", "id")
    assert not raised.value.sent
    # Somebody said no: the machine is there, the replica is not.
    assert not raised.value.unreachable
    assert raised.value.lost


async def test_a_replica_that_hangs_up_may_have_had_the_request() -> None:
    async with serving(Server(b"")) as (upstream, replica):
        with pytest.raises(ReplicaGoneError) as raised:
            await ask(upstream, replica)
    assert raised.value.sent
    assert raised.value.lost


@pytest.mark.parametrize(
    ("status", "sent"),
    [(b"401 X", False), (b"502 X", False), (b"503 X", False), (b"500 X", True)],
)
async def test_a_replica_that_cannot_answer_is_gone(status: bytes, sent: bool) -> None:
    body = b'{"error": {"message": "EngineCore encountered an issue. See"}}' if sent else b""
    reply = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    async with serving(Server(reply)) as (upstream, replica):
        with pytest.raises(ReplicaGoneError) as raised:
            await ask(upstream, replica)
    assert raised.value.sent is sent
    assert raised.value.lost


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (b"503 X", b'{"error": {"message": "too many requests"}}'),
        (b"500 X", b'{"error": {"message": "bad: EngineCore encountered an issue"}}'),
    ],
)
async def test_an_engine_that_says_what_it_failed_at_lives(status: bytes, body: bytes) -> None:
    reply = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    async with serving(Server(reply)) as (upstream, replica):
        answer = await upstream.post(replica, "/v1/x", b"{}", "id")
        assert answer.status == int(status[:3])
        answer.close()


async def test_whoever_has_less_time_to_connect_does_not_blame_the_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*args: Any, **options: Any) -> Any:
        await asyncio.sleep(10)

    async with serving(Server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as (up, replica):
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
        with pytest.raises(LateError):
            await up.post(replica, "/v1/x", b"{}", "id", connect_s=0.01)


async def test_a_silent_engine_is_a_timeout() -> None:
    async with serving(Server(None), timeout_s=0.1) as (upstream, replica):
        with pytest.raises(EngineTimeoutError):
            await ask(upstream, replica)


async def test_an_answer_that_stops_is_broken() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    async with serving(Server(half, b""), timeout_s=0.1) as (upstream, replica):
        answer = await upstream.post(replica, "/v1/x", b"{}", "id")
        assert answer.first == b"half"
        with pytest.raises(ReplicaBrokeError):
            await answer.rest()
        answer.close()


async def test_a_cancelled_request_costs_its_connection() -> None:
    server = Server(None)
    async with serving(server) as (upstream, replica):
        asking = asyncio.create_task(ask(upstream, replica))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await ask(upstream, replica) == b"ok"
    assert server.connections == 2


# ---- machines that vanish: nothing closes the connection --------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.peer.PEER_TIMEOUT_S", 2)
    monkeypatch.setattr("serving.gateway.peer.PROBE_AFTER_S", 1)


@pytest.mark.usefixtures("impatient")
async def test_a_request_to_a_machine_that_vanished_may_be_asked_elsewhere() -> None:
    server = Server()
    async with serving(server, timeout_s=30) as (upstream, replica):
        assert await ask(upstream, replica) == b"ok"
        unplug(server.sockets[0])
        began_s = time.monotonic()
        with pytest.raises(ReplicaGoneError) as raised:
            await ask(upstream, replica)
    assert 1 < time.monotonic() - began_s < 4
    assert raised.value.vanished
    assert raised.value.unreachable
    assert not raised.value.sent  # nothing that the request did
    assert server.connections == len(server.requests) == 1


@pytest.mark.usefixtures("impatient")
async def test_so_may_one_that_its_engine_was_working_on() -> None:
    server = Server(None)
    async with serving(server, timeout_s=30) as (upstream, replica):
        asking = asyncio.create_task(ask(upstream, replica))
        await asyncio.sleep(0.2)
        assert server.requests
        unplug(server.sockets[0])
        with pytest.raises(ReplicaGoneError) as raised:
            await asyncio.wait_for(asking, 5)
    assert raised.value.vanished


@pytest.mark.usefixtures("impatient")
async def test_an_answer_of_a_machine_that_vanished_is_broken() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    async with serving(server, timeout_s=30) as (upstream, replica):
        answer = await upstream.post(replica, "/v1/x", b"{}", "id")
        unplug(server.sockets[0])
        with pytest.raises(ReplicaBrokeError):
            await asyncio.wait_for(answer.rest(), 5)
        answer.close()


@pytest.mark.usefixtures("impatient")
async def test_an_engine_that_thinks_for_long_has_not_vanished() -> None:
    server = Server(None)
    async with serving(server, timeout_s=30) as (upstream, replica):
        asking = asyncio.create_task(ask(upstream, replica))
        await asyncio.wait({asking}, timeout=4)
        assert not asking.done()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_machine_that_takes_no_connection_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        unplug(listener)
        replica = Replica("r", f"http://127.0.0.1:{listener.getsockname()[1]}", "t")
        upstream = Upstream(connect_timeout_s=0.2, response_timeout_s=1)
        with pytest.raises(ReplicaGoneError) as raised:
            await upstream.post(replica, "/v1/x", b"{}", "id")
    assert raised.value.unreachable
    assert not raised.value.vanished


# ---- unread is not unacknowledged -------------------------------------------------------------------------


@asynccontextmanager
async def unread(timeout_s: float) -> AsyncIterator[tuple[asyncio.Task[bytes], socket.socket]]:
    """A large request to a replica that accepts its connection and reads nothing, and its end of that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        replica = Replica("r", f"http://127.0.0.1:{listener.getsockname()[1]}", "t")
        upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=timeout_s)
        body = b"x" * 16_000_000
        asking = asyncio.create_task(_rest(upstream, replica, body))
        await asyncio.sleep(0.1)
        taken, _ = listener.accept()
        with taken:
            try:
                yield asking, taken
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await upstream.stop()


async def _rest(upstream: Upstream, replica: Replica, body: bytes) -> bytes:
    return await (await upstream.post(replica, "/v1/x", body, "id")).rest()


@pytest.mark.usefixtures("impatient")
async def test_a_replica_that_does_not_read_for_a_while_has_not_vanished() -> None:
    async with unread(timeout_s=30) as (asking, taken):
        await asyncio.wait({asking}, timeout=4)
        assert not asking.done()
        taken.setblocking(False)
        loop, left = asyncio.get_running_loop(), 16_000_000
        while left > 0:
            left -= len(await asyncio.wait_for(loop.sock_recv(taken, 1 << 20), 5))
        await loop.sock_sendall(taken, OK)
        assert await asyncio.wait_for(asking, 5) == b"ok"


@pytest.mark.usefixtures("impatient")
async def test_one_that_vanishes_while_it_does_not_read_is_found_out() -> None:
    async with unread(timeout_s=30) as (asking, taken):
        await asyncio.sleep(0.1)
        unplug(taken)
        with pytest.raises(ReplicaGoneError) as raised:
            await asyncio.wait_for(asking, 6)
    assert raised.value.vanished


async def test_a_replica_that_never_reads_is_silent() -> None:
    async with unread(timeout_s=0.3) as (asking, _):
        with pytest.raises(EngineTimeoutError):
            await asyncio.wait_for(asking, 5)


# ---- answers ----------------------------------------------------------------------------------------------


async def test_an_early_answer_costs_its_connection() -> None:
    """What is left of the request would be read before the next one."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\ncontent-length: 3\r\n\r\ntoo")
        await asyncio.sleep(1)
        writer.close()

    connections = 0
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=5)
    replica = Replica("r", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "t")
    for _ in range(2):
        answer = await upstream.post(replica, "/v1/x", b"x" * 16_000_000, "id")
        assert (answer.status, await answer.rest()) == (413, b"too")
        answer.close()
    assert connections == 2
    await upstream.stop()
    server.close()


async def test_an_answer_that_is_closed_touches_its_connection_no_more() -> None:
    server = Server(OK, None)
    async with serving(server) as (upstream, replica):
        answer = await upstream.post(replica, "/v1/x", b"{}", "id")
        await answer.rest()
        answer.close()
        asking = asyncio.create_task(ask(upstream, replica))
        await asyncio.sleep(0.05)
        answer.pause()
        answer.resume()
        answer.close()
        assert not asking.done()
        asking.cancel()


async def test_an_answer_that_is_too_long_to_hold_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.gateway.upstream.MAX_WHOLE_BYTES", 3)
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    async with serving(Server(half)) as (upstream, replica):
        with pytest.raises(ReplicaBrokeError):
            await ask(upstream, replica)


async def test_a_request_that_is_given_up_ends_with_a_reset() -> None:
    """A replica that hears an end of input cannot know whether its answer is still wanted."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'{"a":1}')
        try:
            await reader.read(1)
        except ConnectionResetError:
            ended.set_result("reset")
        else:
            ended.set_result("end of input")
        writer.close()

    listener = await asyncio.start_server(replica, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=5)
    asking = asyncio.create_task(ask(upstream, Replica("r", f"http://127.0.0.1:{port}", "t")))
    await asyncio.sleep(0.05)
    asking.cancel()
    assert await asyncio.wait_for(ended, 5) == "reset"
    await upstream.stop()
    listener.close()
