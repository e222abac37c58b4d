"""One client's connection: reads its requests one after another, and hands each to the application.

serving/http/phases.py draws its states; serving/http/ending.py is the half that sees to its end.
"""

from __future__ import annotations

import asyncio
import math

from serving.errors import ComptoirError, MalformedHttpError
from serving.http.ending import EndingConnection
from serving.http.exchange import Exchange
from serving.http.peer import Peer
from serving.http.phases import Phase
from serving.http.requests import Head
from serving.http.server import Server
from serving.http.watches import BodyWatch, StallWatch

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
# What a client may send ahead before no more is read, and after its connection's last answer.
MAX_AHEAD_BYTES = 64 * 1024
MAX_LINGER_BYTES = 8 * 1024 * 1024


class HttpConnection(EndingConnection):
    """What asyncio, the `Exchange` in progress, the table and the listener tell one connection."""

    __slots__ = ("_lingered",)

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._lingered = 0

    # ---- asyncio.Protocol --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        limits, table = self._server.limits, self._server.table
        self._stall = StallWatch(self._transport, limits.write_stall_s)
        self.peer = Peer(transport, table)
        self.phase = Phase.PROXY if self.peer.owes_header else Phase.IDLE
        self._wait(limits.head_timeout_s)
        error = table.admit(self)
        if error is not None:
            self.refuse(error)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.LINGER:
            self._lingered += len(data)
            if self._lingered > MAX_LINGER_BYTES:
                self._transport.abort()
        elif self.phase is not Phase.CLOSED:
            self._reader.feed(data)
            self._advance()

    def pause_writing(self) -> None:
        self.is_slow = True
        if self.phase is Phase.BUSY:
            self._server.table.is_behind(self)
        self._stall.begin(self._server.loop.time())

    def resume_writing(self) -> None:
        self.is_slow = False
        self._server.table.is_with_it(self)
        exchange = self.exchange
        if exchange is not None:
            self._stall.end()
            exchange.wake()
            if exchange.on_writable is not None:
                exchange.on_writable()

    # ---- requests ----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Process the input that has arrived."""
        try:
            if self.phase is Phase.PROXY:
                self._take_proxy_header()
            if self.phase is Phase.BUSY:
                self._take_body()
            elif self.phase in (Phase.IDLE, Phase.HEAD):
                self._take_head()
        except ComptoirError as error:
            self.refuse(error)

    def _take_proxy_header(self) -> None:
        length = self.peer.take_header(self._reader.peek())
        if length is not None:
            self._reader.skip(length)
            self.phase = Phase.IDLE
            error = self._server.table.count(self)
            if error is not None:
                raise error

    def _take_head(self) -> None:
        head = self._reader.take_head()
        if head is not None:
            self._begin(head)
        elif self.phase is Phase.IDLE and self._reader.waiting_bytes:
            self.phase = Phase.HEAD
            if self.requests:
                # The first head has been awaited since the connection was made.
                self._wait(self._server.limits.head_timeout_s)

    def _begin(self, head: Head) -> None:
        server = self._server
        self.requests += 1
        self.phase = Phase.BUSY
        server.table.begin(self)
        exchange = self.exchange = Exchange(self, head, self._transport)
        if self.peer.is_proxy:
            self.peer.begin_request(head.headers)
        reader = self._reader
        has_body = not reader.is_whole
        if has_body:
            self._take_body()
        else:
            exchange.body_is_whole = True
            self._bound_what_is_ahead()
        if reader.is_whole:
            self._deadline_s = math.inf
            if self._has_eof and not has_body:
                self._probe(exchange)
        else:
            now_s, limits = server.loop.time(), server.limits
            self._body_watch = BodyWatch(now_s, limits.body_timeout_s, limits.body_min_bytes_per_s)
            self._deadline_s = self._body_watch.next_look_s(now_s)
            if self._has_eof and not reader.is_behind:
                raise MalformedHttpError("the input ended in the middle of the body")
        server.begin(exchange)

    def _take_body(self) -> None:
        exchange, reader = self.exchange, self._reader
        if exchange is not None and not reader.is_whole:
            data, is_whole = reader.take_body()
            exchange.body_arrived(data, is_whole=is_whole)
            if is_whole:
                self._deadline_s = math.inf
            elif exchange.has_enough:
                self._pause()
            elif reader.is_behind:
                self._pause()
                self._server.loop.call_soon(self._catch_up)
            else:
                self._resume()
        self._bound_what_is_ahead()

    def _bound_what_is_ahead(self) -> None:
        if self._reader.is_whole and self._reader.waiting_bytes > MAX_AHEAD_BYTES:
            self._pause()

    def _catch_up(self) -> None:
        """Go on with a body of many small chunks, after other connections had a turn."""
        if self.phase is Phase.BUSY and self._reader.is_behind:
            self._resume()
            self._advance()

    # ---- for the exchange --------------------------------------------------------------------------------

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with the present answer."""
        return self._server.table.is_draining or self._has_heard_all

    def recognise(self, exchange: Exchange, who: str) -> None:
        """Note that a key was accepted."""
        if not self.is_recognised:
            self._server.table.recognise(self)
        if exchange is self.exchange:
            self.peer.recognised(who)

    def body_was_read(self) -> None:
        """Note that the application has taken the body so far."""
        self._resume()
        if self._reader.is_behind:
            self._advance()

    def answered(self, exchange: Exchange) -> None:
        """Finish an answer; go on with the next request if the connection allows one."""
        if exchange is not self.exchange:
            return
        self._take_exchange()
        if self._transport.get_write_buffer_size():
            self._stall.begin(self._server.loop.time())
        if exchange.closes or self._has_heard_all or not self._reader.is_whole:
            self._linger()
            return
        self.phase = Phase.IDLE
        self._wait(self._server.limits.idle_timeout_s)
        self._server.table.rest(self)
        if self._reader.waiting_bytes <= MAX_AHEAD_BYTES:
            # Otherwise the next request is among what was sent ahead, and each would let one more read in.
            self._resume()
        if self._reader.waiting_bytes:
            self._advance()
            if self._has_eof and self.phase is not Phase.BUSY:
                # What was sent ahead ends in the middle of a request.
                self.close()
