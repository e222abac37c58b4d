"""A raw HTTP client that costs little: fixed request bytes out, events counted and timed, nothing decoded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Self

import httptools

from serving.api import CHAT


def request_bytes(address: str, headers: Mapping[str, str], body: Mapping[str, object]) -> bytes:
    """A chat completion request as it goes over the wire, to be sent any number of times."""
    payload = json.dumps(body).encode()
    lines = [
        f"POST {CHAT} HTTP/1.1",
        f"host: {address}",
        "content-type: application/json",
        f"content-length: {len(payload)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


class Connection(asyncio.Protocol):
    """One connection, one request at a time; counts what arrives, over all requests.

    Attributes:
        events: server-sent events received.
        frames: HTTP chunks that they came in: how often the other side wrote.
        reads: pieces that the kernel handed over.
        errors: answers that were not 200, and connections that ended inside an answer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[float] | None = None
        self._first: asyncio.Future[float] | None = None
        self._ends_in_one_newline = False
        self.began_s = 0.0
        self.events = self.frames = self.reads = self.errors = 0

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect to `host:port`."""
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, int(port))
        return connection

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return not self._transport.is_closing()

    def start(self, request: bytes) -> asyncio.Future[float]:
        """Send; the future's result is the seconds until the answer was complete."""
        self._done = self._loop.create_future()
        self._first = self._loop.create_future()
        self.began_s = time.perf_counter()
        self._transport.write(request)
        return self._done

    @property
    def first(self) -> asyncio.Future[float]:
        """The seconds until the first byte of the body of what was started last."""
        assert self._first is not None  # noqa: S101 - `start` comes first
        return self._first

    def close(self) -> None:
        """Leave."""
        self._done = None
        self._transport.abort()

    # ---- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self.errors += 1
            self._finish()

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self.errors += 1

    def on_chunk_header(self) -> None:
        self.frames += 1

    def on_body(self, body: bytes) -> None:
        self.events += self.count_events(body)
        if self._first is not None and not self._first.done():
            self._first.set_result(time.perf_counter() - self.began_s)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._finish()

    def count_events(self, body: bytes) -> int:
        """The number of events that end in this piece."""
        # The two newlines of an event's end may come in two pieces.
        count = body.count(b"\n\n") + (self._ends_in_one_newline and body[:1] == b"\n")
        self._ends_in_one_newline = body.endswith(b"\n") and not body.endswith(b"\n\n")
        return count

    def _finish(self) -> None:
        elapsed_s = time.perf_counter() - self.began_s
        for future in (self._first, self._done):
            if future is not None and not future.done():
                future.set_result(elapsed_s)


class TimedConnection(Connection):
    """Notes when each event of the last request arrived, and keeps its answer, to be judged later.

    Attributes:
        pieces: the body as it came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrivals_s: list[float] = []
        self.content_type = ""
        self.pieces: list[bytes] = []

    def start(self, request: bytes) -> asyncio.Future[float]:
        self.arrivals_s, self.pieces, self.content_type = [], [], ""
        return super().start(request)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        now_s, before = time.perf_counter(), self.events
        super().on_body(body)
        self.arrivals_s += [now_s] * (self.events - before)
        self.pieces.append(body)
