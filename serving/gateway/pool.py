"""Kept-alive connections to one replica: a bounded number of idle ones, the one used last first."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from serving.gateway.connection import ReplicaConnection
from serving.gateway.connection_errors import ClosedError
from serving.gateway.peer import watch

# Shorter than the replicas' own (serving/listener.py), so that a request seldom meets a closing connection.
KEEP_ALIVE_S = 60.0
# As many as a replica has requests open by default; beyond that, a connection is cheaper than keeping it.
MAX_IDLE = 256
# Of all replicas together: each is an open file here and there.
MAX_IDLE_IN_ALL = 4096


class IdleCount:
    """How many connections all pools of a gateway keep."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Pool:
    """The connections to one replica.

    Args:
        connect_timeout_s: how long the replica's machine may take to accept one.
        silence_s: how long the replica may send nothing while it owes an answer.
        pause_s: how long an answer may be left unread.
        idle_in_all: shared with the other pools.
    """

    def __init__(
        self,
        base_url: str,
        connect_timeout_s: float,
        silence_s: float,
        pause_s: float,
        idle_in_all: IdleCount,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._pause_s = pause_s
        self._idle_in_all = idle_in_all
        # In the order in which they became idle.
        self._idle: dict[ReplicaConnection, None] = {}
        self._opening = 0
        self.connections: set[ReplicaConnection] = set()

    @property
    def is_unused(self) -> bool:
        """Whether it has no connection and opens none."""
        return not self.connections and not self._opening

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._idle)

    async def acquire(self, *, fresh: bool = False) -> ReplicaConnection:
        """A connection that is free.

        Args:
            fresh: a new one, though others may be idle.

        Raises:
            OSError, TimeoutError: nobody accepts one at that address in time.
        """
        if not fresh:
            self._drop_old()
            while self._idle:
                connection = self._take_last()
                if connection.is_open:
                    return connection
                connection.close()
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                transport, connection = await self._loop.create_connection(
                    self._new, self._host, self._port
                )
        finally:
            self._opening -= 1
        if not connection.is_open:
            # Taken by a listener that was about to close.
            connection.close()
            raise ConnectionResetError
        watch(transport.get_extra_info("socket"))
        self.connections.add(connection)
        return connection

    def release(self, connection: ReplicaConnection) -> None:
        """Keep a connection that is clean; close any other."""
        if not connection.recycle():
            return
        if len(self._idle) >= MAX_IDLE or self._idle_in_all.value >= MAX_IDLE_IN_ALL:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle[connection] = None
        self._idle_in_all.value += 1

    def close(self) -> None:
        """Close every connection; waiters for an answer get an error."""
        for connection in list(self.connections):
            connection.fail(ClosedError("the gateway stops"))

    def _new(self) -> ReplicaConnection:
        return ReplicaConnection(self._loop, self._silence_s, self._gone, self._pause_s)

    def _take_last(self) -> ReplicaConnection:
        self._idle_in_all.value -= 1
        return self._idle.popitem()[0]

    def _drop_old(self) -> None:
        """Close those that have been idle for too long; the first of them is the oldest."""
        oldest = self._loop.time() - KEEP_ALIVE_S
        while self._idle:
            connection = next(iter(self._idle))
            if connection.idle_since > oldest:
                return
            self._forget(connection)
            connection.close()

    def _forget(self, connection: ReplicaConnection) -> None:
        del self._idle[connection]
        self._idle_in_all.value -= 1

    def _gone(self, connection: ReplicaConnection) -> None:
        self.connections.discard(connection)
        if connection in self._idle:
            self._forget(connection)
