"""The server: reads requests for the engine and writes what it sends; one thread, little CPU.

It runs on asyncio's own loop, whose transports hand a write to the kernel at once. uvloop's keep it until
the end of the turn, so that noted and true times would part.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import httptools

from loadtests.reference import messages, wayward
from loadtests.reference.config import ReferenceConfig
from loadtests.reference.engine import Reference, Reply
from serving import api

BACKLOG = 4096


class Connection(asyncio.Protocol):
    """One connection: one request at a time, kept alive."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._parser = httptools.HttpRequestParser(self)
        self._is_lost = False
        self.reply: Reply | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.write(messages.error(400, "this is not HTTP"))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self.reply is not None:
            self.reply.end("gone")
        # It knows us, and we know it; the garbage collector is switched off.
        del self._parser

    def write(self, data: bytes) -> None:
        """Hand it to the kernel, or keep it where the client does not read."""
        if not self._is_lost:
            self._transport.write(data)

    def replied(self) -> None:
        """An answer is complete: another may be asked for."""
        self.reply = None
        if not self._is_lost and not self._parser.should_keep_alive():
            self._transport.close()

    def cut(self) -> None:
        """Leave in the middle of an answer."""
        if not self._is_lost:
            self._transport.abort()

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._path, self._body, self._request_id, self._end = b"", b"", "", ""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"x-request-id":
                self._request_id = value.decode("latin-1")
            case b"x-reference-end":
                self._end = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self.reply is not None:
            # Pipelining, which no client does that is worth testing.
            self._transport.abort()
            return
        path = self._path.partition(b"?")[0]
        kind = messages.KINDS.get(path)
        if kind is None:
            self.write(self._other(self._parser.get_method(), path))
            self.replied()
            return
        try:
            asked = messages.parse(kind, self._body)
            if self._end and self._end not in wayward.ways(asked):
                raise messages.BadRequest("x-reference-end: a request of this kind has no such end")
        except messages.BadRequest as error:
            self.write(messages.error(400, str(error)))
            self.replied()
            return
        self._reference.ask(self, asked, self._request_id, self._end)

    def _other(self, method: bytes, path: bytes) -> bytes:
        reference = self._reference
        pages: Mapping[tuple[bytes, bytes], Callable[[], bytes]] = {
            (b"GET", api.HEALTH.encode()): lambda: messages.simple(200, b""),
            (b"GET", api.MODELS.encode()): lambda: messages.models(reference.config.model),
            (b"GET", api.METRICS.encode()): reference.metrics,
            (b"GET", b"/truth"): reference.told_truth,
            (b"DELETE", b"/truth"): reference.forget,
            (b"GET", b"/freezes"): reference.told_freezes,
            (b"POST", b"/freeze"): lambda: reference.asked_to_freeze(self._body),
        }
        page = pages.get((method, path))
        return page() if page else messages.error(404, "there is nothing at this address")


async def serve(config: ReferenceConfig, when_ready: Callable[[int], None]) -> None:
    """Listen until cancelled; `when_ready` is told the port."""
    reference = Reference(config)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(reference), config.host, config.port, backlog=BACKLOG
    )
    if config.freeze_at_s is not None:
        reference.freeze(config.freeze_at_s, config.freeze_for_s)
    when_ready(server.sockets[0].getsockname()[1])
    with contextlib.suppress(asyncio.CancelledError):
        await server.serve_forever()
