"""uvicorn's HTTP protocol with bounds on what a stranger can send, and a short way to the client's socket.

ASGI's `send` costs a dictionary, a coroutine and several frames for every piece of a body. An answer in a
thousand small pieces goes through `ClientConnection` instead, an ASGI extension of our own
(https://asgi.readthedocs.io/en/latest/extensions.html).
tests/test_http_protocol.py fails when uvicorn moves what this relies on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Before any key is looked at, a client can only send so much, and only for so long.
MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 30.0
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

    def recognised(self) -> None:
        """A key was accepted on this connection: it no longer counts as a stranger's."""

    @property
    def is_lost(self) -> bool:
        """Whether the client has gone. `on_lost` is called once when it goes."""

    @property
    def is_slow(self) -> bool:
        """Whether more is buffered than the client reads. `on_writable` is called when that ends."""

    def write(self, data: bytes) -> None:
        """Send one piece of a chunked body (RFC 9112, 7.1); never blocks."""


def client_of(scope: Mapping[str, Any]) -> ClientConnection:
    """The client connection of an ASGI scope that `BoundedHttp` made."""
    client: ClientConnection = scope["extensions"][EXTENSION]["connection"]
    return client


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol with a bound on the request line and headers, and a time to send them in."""

    on_lost: Callable[[], Any] | None = None
    on_writable: Callable[[], Any] | None = None
    on_shutdown: Callable[[], Any] | None = None
    is_lost = is_cut = False

    @property
    def has_begun(self) -> bool:
        return self.cycle is not None and self.cycle.response_started

    def recognised(self) -> None:
        """Nothing is limited yet."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The request line and headers are too long.")

    def on_message_begin(self) -> None:
        self._head_bytes, self._in_head = 0, True
        super().on_message_begin()
        # One answer at a time leaves a connection, so the connection itself stands for its request.
        self.scope["extensions"] = {EXTENSION: {"connection": self}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._deadline.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self.is_lost = True
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    # ---- ClientConnection --------------------------------------------------------------------------------

    @property
    def is_slow(self) -> bool:
        return self.flow.write_paused

    def write(self, data: bytes) -> None:
        if not self.is_lost:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_writable is not None:
            self.on_writable()
