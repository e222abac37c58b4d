"""The peer of one connection: its address, and the client that the connection counts for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from serving.http.proxies import Address, forwarded_for, parse_address, parse_proxy_header

if TYPE_CHECKING:
    from serving.http.table import ConnectionTable

Name = tuple[str, int]


class Peer:
    """The socket's own peer, until a trusted proxy names another.

    Attributes:
        address: the address that the connection counts for; None: no address.
        client: the client as ASGI names it; with `X-Forwarded-For`, that of the present request.
        server: this end.
        is_proxy: whether it is a trusted proxy that has named nobody for the whole connection.
    """

    __slots__ = (
        "_claimant",
        "_forwarded",
        "_own",
        "_table",
        "address",
        "client",
        "is_proxy",
        "server",
    )

    def __init__(self, transport: asyncio.BaseTransport, table: ConnectionTable) -> None:
        self._table = table
        self.client = self._own = _name(transport.get_extra_info("peername"))
        self.server = _name(transport.get_extra_info("sockname"))
        self.address = parse_address(self.client[0]) if self.client else None
        self.is_proxy = self.address is not None and table.trusts(self.address)
        self._forwarded: Address | None = None
        self._claimant = ""

    @property
    def owes_header(self) -> bool:
        """Whether a header of the PROXY protocol comes first."""
        return self.is_proxy and self._table.limits.proxy_protocol

    def take_header(self, data: bytes) -> int | None:
        """Read that header; its length, or None while it is not all there.

        Raises:
            MalformedHttpError: it is not one.
        """
        found = parse_proxy_header(data)
        if found is None:
            return None
        address, length = found
        if address is not None:
            self.address, self.client, self.is_proxy = address, (str(address), 0), False
        return length

    def begin_request(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Count a request for the client that the proxy names.

        Raises:
            TooManyConnectionsError: that address has too many open requests.
        """
        if not self.is_proxy or self._table.limits.proxy_protocol:
            return
        found = forwarded_for(headers, self._table.limits.trusted_proxies)
        if found is not None:
            self._table.enter(found)
            self._forwarded, self.client = found, (str(found), 0)

    def recognised(self, who: str) -> None:
        """Count the request for its accepted key, and no longer for an address.

        Raises:
            TooManyConnectionsError: the key has too many open requests.
        """
        if self._forwarded is not None:
            self._leave(self._forwarded)
        if who and not self._claimant:
            self._table.claim(who)
            self._claimant = who

    def end_request(self) -> None:
        """End a request: its answer is whole, or never will be."""
        if self._forwarded is not None:
            self._leave(self._forwarded)
        if self._claimant:
            self._table.give_back(self._claimant)
            self._claimant = ""
        if self.is_proxy:
            self.client = self._own

    def _leave(self, address: Address) -> None:
        self._table.leave(address)
        self._forwarded = None


def _name(found: Any) -> Name | None:
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
