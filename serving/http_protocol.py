"""A direct way to the client's socket for ASGI applications: its state, and the operations on it.

ASGI's `send` costs a dictionary, a coroutine and several frames for every piece of a body. An answer in a
thousand small pieces goes through `ClientConnection` instead, an ASGI extension of our own
(https://asgi.readthedocs.io/en/latest/extensions.html).
serving/http/exchange.py is the one that implements it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

EXTENSION = "comptoir.client"


class ClientConnection(Protocol):
    """The client's side of one request, for answers in many small pieces.

    Between `send` of `http.response.start` (without a content-length) and `send` of the last body message,
    `write` may be called any number of times, from any callback of the event loop.
    """

    on_lost: Callable[[], Any] | None
    on_writable: Callable[[], Any] | None
    # Called once when the listener closes and waits no longer (`is_cut` is true then): tell the client, and
    # end. Without it the request's task is cancelled. Soon after it the connection is cut.
    on_shutdown: Callable[[], Any] | None

    @property
    def is_cut(self) -> bool:
        """Whether the listener is closing and no longer waits for this request."""

    @property
    def has_begun(self) -> bool:
        """Whether the head of the answer has been sent."""

    def recognised(self, who: str = "") -> None:
        """Note an accepted key: the connection no longer counts as one without.

        Args:
            who: the key that the request counts for until it is answered; "" without several keys.

        Raises:
            TooManyConnectionsError: the key has as many open as there is room for all others.
        """

    @property
    def is_lost(self) -> bool:
        """Whether the client has gone. `on_lost` is called once when it goes."""

    @property
    def is_slow(self) -> bool:
        """Whether more is buffered than the client reads. `on_writable` is called when that ends."""

    def write(self, data: bytes) -> None:
        """Send one piece of the body, framed as the client's version of HTTP needs it; never blocks."""


def client_of(scope: Mapping[str, Any]) -> ClientConnection:
    """The client connection of an ASGI scope that `Listener` made."""
    client: ClientConnection = scope["extensions"][EXTENSION]["connection"]
    return client
