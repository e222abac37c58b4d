"""From the gateway to the replicas: one POST on each connection at a time, bytes back."""

from __future__ import annotations

import asyncio
import enum

from serving.config.connections import ConnectionsConfig
from serving.discovery.directory import Replica
from serving.errors import EngineTimeoutError
from serving.gateway.blame import names_a_dead_engine
from serving.gateway.connection import ReplicaConnection
from serving.gateway.connection_errors import (
    BrokenError,
    ClosedError,
    Receiver,
    SilentError,
    UnreadError,
    VanishedError,
    is_unreachable,
)
from serving.gateway.pool import IdleCount, Pool
from serving.replica_protocol import PAYER_HEADER, QUEUED_HEADER, REQUEST_ID_HEADER, TOKEN_HEADER

# Of the door, without a body. 401: the address now belongs to another replica; 502, 503: its engine is dead.
_GONE = frozenset({401, 502, 503})
# What is held of an answer that goes out whole: refusals, results of prefill replicas.
MAX_WHOLE_BYTES = 4 * 1024 * 1024
# An answer may be left unread because its client does not read for so much longer than the listener lets a
# client stand still. The replicas' listeners give the gateway more than that.
PAUSE_MARGIN_S = 60.0
PAUSE_TIMEOUT_S = ConnectionsConfig().write_stall_s + PAUSE_MARGIN_S


class Gone(enum.Enum):
    """The reason why a replica has not begun to answer."""

    # For a reason of our own, or because it has too much to do: no connection, or nobody to connect to.
    NO_CONNECTION = enum.auto()
    # Its machine gives no sign of life.
    UNREACHABLE = enum.auto()
    # Its process is no more, or another one has its address; it never had the request.
    REFUSED = enum.auto()
    # Its machine has gone while the connection was open: nothing that the request did.
    VANISHED = enum.auto()
    # Its process or its engine has ended with the request.
    DIED = enum.auto()
    # It had the request, lives, and does not speak HTTP.
    BROKE = enum.auto()


class ReplicaGoneError(Exception):
    """The replica has not begun to answer: another may be asked."""

    def __init__(self, reason: str, how: Gone = Gone.NO_CONNECTION) -> None:
        super().__init__(reason)
        self.how = how

    @property
    def sent(self) -> bool:
        """Whether it had the request when it went; such a request may be what broke it."""
        return self.how in (Gone.DIED, Gone.BROKE)

    @property
    def unreachable(self) -> bool:
        """Whether its machine gives no sign of life: whoever else is on it will not answer either."""
        return self.how in (Gone.UNREACHABLE, Gone.VANISHED)

    @property
    def vanished(self) -> bool:
        """Whether its machine did give signs of life, on this connection."""
        return self.how is Gone.VANISHED

    @property
    def lost(self) -> bool:
        """Whether its process, its engine or its machine is gone, not merely overloaded."""
        return self.how in (Gone.REFUSED, Gone.VANISHED, Gone.DIED)


class LateError(Exception):
    """The time that a request had to get a connection is over; that says nothing of the replica."""


class ReplicaBrokeError(Exception):
    """The replica began to answer and then stopped: nobody can take over."""


class Answer:
    """A replica's answer: status and first bytes are known, the rest follows."""

    __slots__ = ("_connection", "_pool", "content_type", "first", "status", "usage")

    def __init__(self, connection: ReplicaConnection, pool: Pool) -> None:
        # None once it is closed: then the connection is another request's, or nobody's.
        self._connection: ReplicaConnection | None = connection
        self._pool = pool
        self.status = connection.status
        self.content_type = connection.content_type
        # What it cost: known now, or at a stream's end, or never (the client left, the engine broke).
        self.usage = connection.usage
        self.first = connection.take()

    async def rest(self) -> bytes:
        """Everything, from the first byte on.

        Raises:
            ReplicaBrokeError: the connection ended before the answer did, or went silent; or the answer is
                longer than anything that is asked for as a whole.
        """
        whole = await self.within(MAX_WHOLE_BYTES)
        if whole is None:
            raise ReplicaBrokeError(f"more than {MAX_WHOLE_BYTES} bytes")
        return whole

    async def within(self, limit_bytes: int) -> bytes | None:
        """Everything, from the first byte on, if it is no longer than this.

        If it is, None; `first` has then grown, and the rest is for `pipe`.

        Raises:
            ReplicaBrokeError: the connection ended before the answer did, or went silent.
        """
        connection = self._connection
        if connection is None:
            raise RuntimeError("the answer is closed")
        try:
            self.first += await connection.fetch(max(0, limit_bytes - len(self.first)))
        except (BrokenError, SilentError, UnreadError) as error:
            raise ReplicaBrokeError(str(error)) from None
        return self.first if connection.is_complete else None

    @property
    def has_vanished(self) -> bool:
        """Whether it stopped because the replica's machine, or the way to it, has gone."""
        return self._connection is not None and self._connection.has_vanished

    def pipe(self, receiver: Receiver) -> None:
        """Give `receiver` everything after `first` as it arrives."""
        if self._connection is not None:
            self._connection.pipe(receiver)

    def pause(self) -> None:
        """Stop reading until `resume`."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Resume after `pause`."""
        if self._connection is not None:
            self._connection.resume()

    def close(self) -> None:
        """Close it; may be called repeatedly. If it is not complete, the engine aborts the request."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


class Upstream:
    """Every replica's pool."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        response_timeout_s: float,
        pause_timeout_s: float = PAUSE_TIMEOUT_S,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._response_timeout_s = response_timeout_s
        self._pause_timeout_s = pause_timeout_s
        self._idle_in_all = IdleCount()
        self._pools: dict[str, Pool] = {}

    async def stop(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    async def post(
        self,
        replica: Replica,
        path: str,
        body: bytes,
        request_id: str,
        queued: int = 0,
        payer: str = "",
        connect_s: float | None = None,
    ) -> Answer:
        """Send a request and wait for the first bytes of the answer.

        Args:
            queued: requests that wait in this gateway for the replica's model.
            payer: for whom (`PAYER_HEADER`).
            connect_s: how long the request has to get a connection, if that is less than any has.

        Raises:
            LateError: it has none by then.
            ReplicaGoneError: no answer has begun; it is safe to ask another replica.
            EngineTimeoutError: the engine has been silent for too long.
        """
        pool = self._pool(replica.base_url)
        request = _request(replica, path, body, request_id, queued, payer)
        if connect_s is None or connect_s >= self._connect_timeout_s:
            connection = await _acquire(pool)
        else:
            connection = await _acquire_within(pool, connect_s)
        is_reused = connection.is_reused
        try:
            answer = await _ask(pool, connection, request)
        except ReplicaGoneError as gone:
            if gone.sent or gone.vanished or not is_reused:
                raise
            # The replica closed it while it was idle, and nobody has had this request (RFC 9112, 9.3.1).
            answer = await _ask(pool, await _acquire(pool, fresh=True), request)
        died = answer.status == 500 and names_a_dead_engine(answer.first)
        if died or (answer.status in _GONE and not answer.first):
            answer.close()
            raise ReplicaGoneError(f"status {answer.status}", Gone.DIED if died else Gone.REFUSED)
        return answer

    def _pool(self, base_url: str) -> Pool:
        pool = self._pools.get(base_url)
        if pool is None:
            # Replicas come and go, each on a port of its own.
            self._pools = {url: old for url, old in self._pools.items() if not old.is_unused}
            pool = Pool(
                base_url,
                self._connect_timeout_s,
                self._response_timeout_s,
                self._pause_timeout_s,
                self._idle_in_all,
            )
            self._pools[base_url] = pool
        return pool


async def _acquire(pool: Pool, *, fresh: bool = False) -> ReplicaConnection:
    try:
        return await pool.acquire(fresh=fresh)
    except (OSError, TimeoutError) as error:
        if is_unreachable(error):
            how = Gone.UNREACHABLE
        else:
            how = Gone.REFUSED if isinstance(error, ConnectionError) else Gone.NO_CONNECTION
        raise ReplicaGoneError(type(error).__name__, how) from None


async def _acquire_within(pool: Pool, seconds: float) -> ReplicaConnection:
    try:
        async with asyncio.timeout(seconds):
            return await _acquire(pool)
    except TimeoutError:
        raise LateError("no connection in time") from None


async def _ask(pool: Pool, connection: ReplicaConnection, request: bytes) -> Answer:
    """Send it and wait for the first bytes of the answer."""
    try:
        connection.send(request)
        await connection.begun()
    except BrokenError as error:
        pool.release(connection)
        raise ReplicaGoneError(str(error), _how(error)) from None
    except SilentError:
        pool.release(connection)
        raise EngineTimeoutError(
            "the engine did not answer in time; ask for fewer tokens or stream the answer"
        ) from None
    except BaseException:
        connection.close()
        raise
    return Answer(connection, pool)


def _how(error: BrokenError) -> Gone:
    """The consequence of a broken connection for a request."""
    if isinstance(error, VanishedError):
        return Gone.VANISHED
    if isinstance(error, ClosedError):
        return Gone.DIED if error.taken else Gone.REFUSED
    return Gone.BROKE


def _request(
    replica: Replica, path: str, body: bytes, request_id: str, queued: int, payer: str
) -> bytes:
    """The request as bytes (RFC 9112)."""
    host = replica.base_url.removeprefix("http://")
    queue = f"{QUEUED_HEADER}: {queued}\r\n" if queued else ""
    paid = f"{PAYER_HEADER}: {payer}\r\n" if payer else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"{TOKEN_HEADER}: {replica.token}\r\n{REQUEST_ID_HEADER}: {request_id}\r\n{queue}{paid}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
