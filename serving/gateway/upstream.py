"""From the gateway to the replicas: a pool of connections, one POST on each at a time, bytes back."""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

from serving.errors import EngineTimeoutError
from serving.gateway.connection import (
    BrokenError,
    ClosedError,
    Receiver,
    ReplicaConnection,
    SilentError,
    VanishedError,
    is_unreachable,
)
from serving.gateway.engine_errors import ENGINE_DEAD
from serving.replica_protocol import QUEUED_HEADER, TOKEN_HEADER
from serving.routing.directory import Replica

# Shorter than the replicas' own (serving/listener.py), so that a request never meets a closing connection.
KEEP_ALIVE_S = 60.0
# 401: the address now belongs to another replica; 502, 503: the door knows of a dead engine.
_GONE = frozenset({401, 502, 503})
# A machine that has lost its power or its network closes no connection. Its kernel would answer within
# milliseconds whatever its processes do: after so long without an answer it counts as gone.
PEER_TIMEOUT_S = 5
# When nothing has come for so long, the kernel is asked, and again every second.
_PROBE_AFTER_S = 2


class ReplicaGoneError(Exception):
    """The replica has not begun to answer: another may be asked.

    Attributes:
        sent: it had the request when it went; such a request may be what broke it.
        unreachable: its machine gives no sign of life; whoever else is on it will not answer either.
        vanished: it did once, on this connection.
        lost: its process, its engine or its machine is no more: it has not just too much to do.
    """

    def __init__(
        self,
        reason: str,
        *,
        sent: bool = False,
        unreachable: bool = False,
        vanished: bool = False,
        lost: bool = False,
    ) -> None:
        super().__init__(reason)
        self.sent = sent
        self.unreachable = unreachable or vanished
        self.vanished = vanished
        self.lost = lost or vanished


class ReplicaBrokeError(Exception):
    """The replica began to answer and then stopped: nobody can take over."""


class Answer:
    """A replica's answer: status and first bytes are known, the rest follows."""

    __slots__ = ("_connection", "_is_open", "_pool", "content_type", "first", "status", "usage")

    def __init__(self, connection: ReplicaConnection, pool: Pool) -> None:
        self._connection = connection
        self._pool = pool
        self._is_open = True
        self.status = connection.status
        self.content_type = connection.content_type
        # What it cost: known now, or at a stream's end, or never (the client left, the engine broke).
        self.usage = connection.usage
        self.first = connection.take()

    async def rest(self) -> bytes:
        """Everything, from the first byte on.

        Raises:
            ReplicaBrokeError: the connection ended before the answer did, or went silent.
        """
        try:
            return self.first + await self._connection.whole()
        except (BrokenError, SilentError) as error:
            raise ReplicaBrokeError(str(error)) from None

    def pipe(self, receiver: Receiver) -> None:
        """Give `receiver` everything after `first` as it arrives."""
        self._connection.pipe(receiver)

    def pause(self) -> None:
        """Take in no more until `resume`."""
        self._connection.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._connection.resume()

    def close(self) -> None:
        """Done with it, once or more often. If it is not complete, the engine aborts the request."""
        if self._is_open:
            self._is_open = False
            self._pool.release(self._connection)


class Pool:
    """The connections to one replica."""

    def __init__(self, base_url: str, connect_timeout_s: float, silence_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._idle: list[ReplicaConnection] = []
        self._opening = 0
        self.connections: set[ReplicaConnection] = set()

    @property
    def is_unused(self) -> bool:
        """Whether it has no connection and opens none."""
        return not self.connections and not self._opening

    async def acquire(self) -> ReplicaConnection:
        """A connection that is free.

        Raises:
            ReplicaGoneError: nobody accepts one at that address in time.
        """
        oldest = self._loop.time() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.close()
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await self._loop.create_connection(
                    lambda: ReplicaConnection(self._loop, self._silence_s, self._gone),
                    self._host,
                    self._port,
                )
        except (OSError, TimeoutError) as error:
            raise ReplicaGoneError(
                type(error).__name__,
                unreachable=is_unreachable(error),
                lost=isinstance(error, ConnectionRefusedError),
            ) from None
        finally:
            self._opening -= 1
        _watch_peer(transport.get_extra_info("socket"))
        self.connections.add(connection)
        return connection

    def release(self, connection: ReplicaConnection) -> None:
        """Keep a connection whose answer is complete; close any other."""
        if connection.is_reusable:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
        else:
            connection.close()

    def _gone(self, connection: ReplicaConnection) -> None:
        self.connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class Upstream:
    """Every replica's pool."""

    def __init__(self, *, connect_timeout_s: float, response_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._response_timeout_s = response_timeout_s
        self._pools: dict[str, Pool] = {}

    async def start(self) -> None:
        """Nothing is opened before the first request; here for symmetry with `stop`."""

    async def stop(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            for connection in list(pool.connections):
                connection.close()
        self._pools.clear()

    async def post(
        self, replica: Replica, path: str, body: bytes, request_id: str, queued: int = 0
    ) -> Answer:
        """Send a request and wait for the first bytes of the answer.

        Args:
            queued: requests that wait in this gateway for the replica's model.

        Raises:
            ReplicaGoneError: no answer has begun; it is safe to ask another replica.
            EngineTimeoutError: the engine is silent for too long.
        """
        pool = self._pool(replica.base_url)
        connection = await pool.acquire()
        try:
            connection.send(_request(replica, path, body, request_id, queued))
            await connection.begun()
        except BrokenError as error:
            pool.release(connection)
            vanished = isinstance(error, VanishedError)
            lost = isinstance(error, ClosedError)
            raise ReplicaGoneError(
                str(error), sent=not vanished, vanished=vanished, lost=lost
            ) from None
        except SilentError:
            pool.release(connection)
            raise EngineTimeoutError(
                "the engine did not answer in time; ask for fewer tokens or stream the answer"
            ) from None
        except BaseException:
            connection.close()
            raise
        answer = Answer(connection, pool)
        died = answer.status == 500 and ENGINE_DEAD in answer.first
        if died or answer.status in _GONE:
            answer.close()
            raise ReplicaGoneError(f"status {answer.status}", sent=died, lost=True)
        return answer

    def _pool(self, base_url: str) -> Pool:
        pool = self._pools.get(base_url)
        if pool is None:
            # Replicas come and go, each on a port of its own.
            self._pools = {url: old for url, old in self._pools.items() if not old.is_unused}
            pool = Pool(base_url, self._connect_timeout_s, self._response_timeout_s)
            self._pools[base_url] = pool
        return pool


def _watch_peer(sock: Any) -> None:
    """Let the kernel end a connection whose other end has vanished (`tcp(7)`).

    Keep-alive probes find out while nothing is under way, the user timeout bounds what is unacknowledged.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PEER_TIMEOUT_S - _PROBE_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT_S * 1000)


def _request(replica: Replica, path: str, body: bytes, request_id: str, queued: int) -> bytes:
    """The request as bytes (RFC 9112)."""
    host = replica.base_url.removeprefix("http://")
    queue = f"{QUEUED_HEADER}: {queued}\r\n" if queued else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"{TOKEN_HEADER}: {replica.token}\r\nx-request-id: {request_id}\r\n{queue}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
