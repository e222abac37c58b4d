"""A connection without a network: a transport that notes what is written, and a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from serving.config.connections import ConnectionsConfig
from serving.http.connection import HttpConnection
from serving.http.exchange import Exchange
from serving.http.table import ConnectionTable

PEER = "192.0.2.7"


class Transport(asyncio.Transport):
    """Keeps what is written; `backlog` is how much of it the client has not taken."""

    def __init__(self, peer: str = PEER) -> None:
        super().__init__({"peername": (peer, 4000), "sockname": ("192.0.2.1", 8000)})
        self.written = bytearray()
        self.backlog = 0
        self.is_paused = self.has_eof = self.is_closed = self.is_aborted = False
        self.connection: HttpConnection | None = None

    def write(self, data: Any) -> None:
        if not self.is_closed:
            assert not self.has_eof, "something is written after the end"
            self.written += data

    def write_eof(self) -> None:
        self.has_eof = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert low is not None
        assert high > low

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if not self.backlog:
                self.lose()

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True
        self.lose()

    def lose(self) -> None:
        """The loop tells the connection that it is over."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.is_closed = True
            connection.connection_lost(None)


class Place:
    """What a listener is to its connections; requests are noted in `begun`, nobody answers them."""

    def __init__(self, max_connections: int | None = None, **limits: Any) -> None:
        self.limits = ConnectionsConfig(**limits)
        self.table = ConnectionTable(self.limits, max_connections)
        self.begun: list[Exchange] = []
        self.now_s = 1000.0
        self.loop = self
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def run_soon(self) -> None:
        """A round of the loop."""
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()

    def begin(self, exchange: Exchange) -> None:
        self.begun.append(exchange)

    def connect(self, peer: str = PEER) -> tuple[HttpConnection, Transport]:
        """One more client."""
        connection = HttpConnection(self)  # type: ignore[arg-type]
        transport = Transport(peer)
        transport.connection = connection
        connection.connection_made(transport)
        return connection, transport

    def wait(self, seconds: float) -> None:
        """Time passes, and the listener looks at its connections as it does."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(self.now_s + 0.25, until_s)
            self.table.check(self.now_s)


def scope_of(exchange: Exchange) -> dict[str, Any]:
    """What the application is told."""
    return exchange._scope()


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("it waits")


def answer(exchange: Exchange, body: bytes = b"ok", **headers: str) -> None:
    """A whole answer, as an application sends it."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    at_once(exchange.send({"type": "http.response.start", "status": 200, "headers": raw}))
    at_once(exchange.send({"type": "http.response.body", "body": body}))


def begin_stream(exchange: Exchange) -> None:
    """The head of an answer in pieces."""
    at_once(exchange.send({"type": "http.response.start", "status": 200, "headers": []}))


def end_stream(exchange: Exchange) -> None:
    """Its end."""
    at_once(exchange.send({"type": "http.response.body", "body": b""}))


def body_of(exchange: Exchange) -> bytes:
    """The whole body of a request."""
    parts = []
    while True:
        message = at_once(exchange.receive())
        assert message["type"] == "http.request"
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


def get(path: str = "/", *headers: str, version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"GET {path} HTTP/{version}", "host: x", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def post(body: bytes, *headers: str, path: str = "/", version: str = "1.1") -> bytes:
    """A request with a body and its length."""
    lines = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 7) -> bytes:
    """A body in chunks."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
