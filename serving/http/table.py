"""All connections of one listener: their limits, and the one to close when there are too many."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from serving.config.connections import ConnectionsConfig
from serving.errors import PLACE_RETRY_S, ComptoirError, EndpointFullError, TooManyConnectionsError
from serving.http.proxies import Address, counted_as, is_within

if TYPE_CHECKING:
    from serving.http.ending import EndingConnection

# How many connections of an address that has too many are looked at for one that can go.
MAX_LOOKED_AT = 64


class ConnectionTable:
    """Counts connections, and finds the most dispensable one.

    A connection without a request in progress may go: those without a key first, the longest idle first.
    Before all of them goes a client without a key that does not read its answer, which cost it nothing.
    Idle connections thus make room for new requests.
    """

    def __init__(self, limits: ConnectionsConfig, max_connections: int | None = None) -> None:
        """Args: max_connections: instead of the configured number, where the system allows less."""
        self.limits = limits
        self._max = min(limits.max_connections, max_connections or limits.max_connections)
        self.connections: dict[EndingConnection, None] = {}
        self._strangers: dict[EndingConnection, None] = {}
        self._resting: dict[EndingConnection, None] = {}
        # Strangers with a request in progress whose answer waits for them to read.
        self._unread: dict[EndingConnection, None] = {}
        self._unrecognised = 0
        self._addresses: dict[str, dict[EndingConnection, None]] = {}
        self._forwarded: dict[str, int] = {}
        self._claims: dict[str, int] = {}
        self.is_draining = False
        self._waiter: asyncio.Future[None] | None = None
        # What has been turned away or made to go, for those who look after the endpoint.
        self.refused = self.evicted = 0

    # ---- what connections tell ---------------------------------------------------------------------------

    def admit(self, connection: EndingConnection) -> ComptoirError | None:
        """Admit a new connection; return why it cannot stay."""
        self.connections[connection] = None
        self._strangers[connection] = None
        self._unrecognised += 1
        strangers = self.limits.max_unauthenticated
        while strangers is not None and self._unrecognised > strangers:
            if not self._evict_stranger(connection):
                return self._full()
        while len(self.connections) > self._max:
            if not (self._evict_stranger(connection) or self._evict(self._resting, connection)):
                return self._full()
        return self.count(connection)

    def count(self, connection: EndingConnection) -> ComptoirError | None:
        """Count it for its address, once that is known; return why it cannot stay."""
        address = connection.peer.address
        limit = self.limits.max_per_address
        if limit is None or address is None or address.is_loopback or connection.peer.is_proxy:
            return None
        own = self._addresses.setdefault(counted_as(address), {})
        own[connection] = None
        if len(own) <= limit:
            return None
        for other in list(islice(own, MAX_LOOKED_AT)):
            groups = (self._unread, self._strangers, self._resting)
            if other is not connection and any(other in group for group in groups):
                self._let_go(other)
                if len(own) <= limit:
                    return None
        return self._crowded()

    def begin(self, connection: EndingConnection) -> None:
        """Note that it has a request in progress."""
        self._strangers.pop(connection, None)
        self._resting.pop(connection, None)
        if connection.is_slow:
            self.is_behind(connection)

    def is_behind(self, connection: EndingConnection) -> None:
        """Note that it does not read its answer."""
        if connection in self.connections and not connection.is_recognised:
            self._unread[connection] = None

    def is_with_it(self, connection: EndingConnection) -> None:
        """Note that it reads again, or that there is no such answer."""
        self._unread.pop(connection, None)

    def rest(self, connection: EndingConnection) -> None:
        """Note that it has no request in progress any more."""
        self._unread.pop(connection, None)
        if connection in self.connections:
            group = self._resting if connection.is_recognised else self._strangers
            group[connection] = None
        self._notify()

    def recognise(self, connection: EndingConnection) -> None:
        """Note an accepted key: it no longer counts for its address, which may be many clients' proxy."""
        if connection in self.connections:
            self._unrecognised -= 1
            connection.is_recognised = True
            self._unread.pop(connection, None)
            if self._strangers.pop(connection, self) is None:
                self._resting[connection] = None
            self._uncount(connection)

    def remove(self, connection: EndingConnection) -> None:
        """Remove a closed connection."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        self.begin(connection)
        self._unread.pop(connection, None)
        self._unrecognised -= not connection.is_recognised
        self._uncount(connection)
        self._notify()

    def _uncount(self, connection: EndingConnection) -> None:
        if connection.peer.address is None:
            return
        key = counted_as(connection.peer.address)
        own = self._addresses.get(key)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._addresses[key]

    # ---- addresses ---------------------------------------------------------------------------------------

    def trusts(self, address: Address) -> bool:
        """Whether the address is a trusted proxy's."""
        return is_within(address, self.limits.trusted_proxies)

    def enter(self, address: Address) -> None:
        """Count a request that a proxy forwards for this address.

        Raises:
            TooManyConnectionsError: it has too many open requests.
        """
        key, limit = counted_as(address), self.limits.max_per_address
        count = self._forwarded.get(key, 0) + 1
        if limit is not None and count > limit and not address.is_loopback:
            raise self._crowded()
        self._forwarded[key] = count

    def leave(self, address: Address) -> None:
        """End a forwarded request: its answer is whole."""
        key = counted_as(address)
        count = self._forwarded.get(key, 0) - 1
        if count > 0:
            self._forwarded[key] = count
        else:
            self._forwarded.pop(key, None)

    # ---- keys --------------------------------------------------------------------------------------------

    def claim(self, who: str) -> None:
        """Count a request of this key, which may have as many open as others could open now, so never all.

        Raises:
            TooManyConnectionsError: it has that many.
        """
        can_go = len(self._strangers) + len(self._resting) + len(self._unread)
        room = self._max - len(self.connections) + can_go
        count = self._claims.get(who, 0) + 1
        if count > max(1, room):
            self.refused += 1
            raise TooManyConnectionsError(
                "too many of your requests are open: they leave no room for others",
                retry_after_s=PLACE_RETRY_S,
            )
        self._claims[who] = count

    def give_back(self, who: str) -> None:
        """End a key's request: it is answered."""
        count = self._claims[who] - 1
        if count:
            self._claims[who] = count
        else:
            del self._claims[who]

    # ---- for the listener --------------------------------------------------------------------------------

    @property
    def open_count(self) -> int:
        """Connections with a request in progress, or with a first one still to come."""
        idle = sum(
            connection.requests > 0
            for group in (self._strangers, self._resting)
            for connection in group
        )
        return len(self.connections) - idle

    def check(self, now_s: float) -> None:
        """Enforce every connection's limits."""
        for connection in list(self.connections):
            connection.check(now_s)

    async def settled(self, timeout_s: float, *, empty: bool = False) -> bool:
        """Wait until no request is open, or with `empty` no connection; False if `timeout_s` passed first."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while self.connections if empty else self.open_count:
            left_s = until_s - loop.time()
            if left_s <= 0:
                return False
            self._waiter = loop.create_future()
            await asyncio.wait([self._waiter], timeout=left_s)
            self._waiter = None
        return True

    # ---- inside ------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _evict_stranger(self, newcomer: EndingConnection) -> bool:
        return self._evict(self._unread, newcomer) or self._evict(self._strangers, newcomer)

    def _evict(self, group: dict[EndingConnection, None], newcomer: EndingConnection) -> bool:
        """Close the first connection of a group, except the newcomer; return whether there was one."""
        oldest = next((one for one in islice(group, 2) if one is not newcomer), None)
        if oldest is None:
            return False
        self._let_go(oldest)
        return True

    def _let_go(self, connection: EndingConnection) -> None:
        self.evicted += 1
        # asyncio tells of its end in the next round of the loop; it must not be counted or found until then.
        self.remove(connection)
        connection.abort()

    def _full(self) -> ComptoirError:
        self.refused += 1
        return EndpointFullError(
            "the endpoint has no room for more connections", retry_after_s=PLACE_RETRY_S
        )

    def _crowded(self) -> ComptoirError:
        self.refused += 1
        return TooManyConnectionsError(
            f"an address may have {self.limits.max_per_address} open connections or "
            "forwarded requests without an accepted API key",
            retry_after_s=PLACE_RETRY_S,
        )
