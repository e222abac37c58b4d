"""The end of a client's connection: with an error, a reset, or at a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import math

from serving.errors import ComptoirError, RequestTimeoutError
from serving.http.answers import error_answer
from serving.http.exchange import Exchange
from serving.http.peer import Peer
from serving.http.phases import Phase
from serving.http.requests import RequestReader
from serving.http.server import Server
from serving.http.watches import BodyWatch, StallWatch
from serving.tcp import has_ended_input, is_reset, reset

HALF_CLOSE_GRACE_S = 0.5
# A connection that was accepted just before the listener closed has so long to send its request.
LAST_HEAD_S = 1.0


class EndingConnection(asyncio.Protocol):
    """The half of a connection that ends it; the other half reads requests (`HttpConnection`)."""

    __slots__ = (
        "_body_watch",
        "_deadline_s",
        "_has_eof",
        "_is_paused",
        "_reader",
        "_server",
        "_stall",
        "_transport",
        "exchange",
        "is_recognised",
        "is_slow",
        "peer",
        "phase",
        "requests",
    )

    _transport: asyncio.Transport
    _stall: StallWatch
    peer: Peer

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader = RequestReader()
        self.phase = Phase.CLOSED
        self.exchange: Exchange | None = None
        self.requests = 0
        self.is_recognised = self.is_slow = False
        self._has_eof = self._is_paused = False
        self._deadline_s = math.inf
        self._body_watch: BodyWatch | None = None

    # ---- the client ends it ------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        """Returns: whether the connection stays open for an answer."""
        self._has_eof = True
        exchange = self.exchange
        if self.phase is not Phase.BUSY or exchange is None or not self._reader.is_whole:
            return False
        self._probe(exchange)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = Phase.CLOSED
        self._deadline_s = math.inf
        self.is_slow = False
        self._server.table.remove(self)
        exchange = self._take_exchange()
        if exchange is not None:
            exchange.lose()

    @property
    def _has_heard_all(self) -> bool:
        """Whether the client has ended its input, and all of it has been processed."""
        return self._has_eof and not self._reader.waiting_bytes

    def _probe(self, exchange: Exchange) -> None:
        """Find out whether a client that has ended its input has gone."""
        if exchange.can_be_probed:
            exchange.probe()
        elif not exchange.has_begun:
            self._wait(HALF_CLOSE_GRACE_S)

    # ---- we end it ---------------------------------------------------------------------------------------

    def refuse(self, error: ComptoirError) -> None:
        """Answer with an error of this layer, and end; an answer that has begun just breaks off."""
        exchange = self._take_exchange()
        is_head = exchange is not None and exchange.is_head
        if exchange is not None:
            exchange.lose()
            if exchange.has_begun:
                self.abort()
                return
        if not self._transport.is_closing():
            self._transport.write(error_answer(error, is_head=is_head))
            self._stall.begin(self._server.loop.time())
            self._linger()

    def break_off(self, *, has_framing: bool) -> None:
        """End an answer that will not be complete, so that the client sees that it is not.

        Args:
            has_framing: whether the client can tell by what is missing; otherwise it gets a reset.
        """
        self._take_exchange()
        if has_framing:
            if self._transport.get_write_buffer_size():
                self._stall.begin(self._server.loop.time())
            self.close()
        else:
            self.abort()

    def _linger(self) -> None:
        """Close the sending side, and read until the client does the same."""
        if self._has_eof:
            self.close()
            return
        self.phase = Phase.LINGER
        self._wait(self._server.limits.linger_s)
        self._server.table.rest(self)
        self._reader = RequestReader()
        if self._transport.can_write_eof():
            # Where the client has reset the connection, this is the first that notices.
            with contextlib.suppress(OSError):
                self._transport.write_eof()
        self._resume()

    def close(self) -> None:
        """Close once the written data has left."""
        self.phase = Phase.CLOSED
        self._deadline_s = math.inf
        self._transport.close()

    def abort(self) -> None:
        """Close at once, with a reset: unread data is dropped on both sides."""
        reset(self._transport)

    def retire(self) -> None:
        """End because the listener closes, unless a request is open or a first one may be on its way."""
        if self.phase is Phase.IDLE and self.requests:
            self.close()
        elif self.phase in (Phase.IDLE, Phase.HEAD, Phase.PROXY):
            self._deadline_s = min(self._deadline_s, self._server.loop.time() + LAST_HEAD_S)

    def _take_exchange(self) -> Exchange | None:
        """The exchange in progress; from now on there is none."""
        exchange, self.exchange = self.exchange, None
        self._body_watch = None
        self.peer.end_request()
        return exchange

    # ---- time --------------------------------------------------------------------------------------------

    def check(self, now_s: float) -> None:
        """Enforce the limits; called a few times a second."""
        if self._stall.has_stalled(now_s):
            self.abort()
        elif now_s >= self._deadline_s:
            self._expire(now_s)
        elif (self._has_eof or self._is_paused) and self.phase is Phase.BUSY:
            self._look_for_client()

    def _expire(self, now_s: float) -> None:
        watch = self._body_watch
        if self.phase is Phase.HEAD:
            self.refuse(RequestTimeoutError("the request line and headers did not arrive in time"))
        elif self.phase is Phase.BUSY and watch is not None and not self._reader.is_whole:
            if watch.is_late(now_s, self._reader.received, is_paused=self._is_paused):
                self.refuse(RequestTimeoutError("the body did not arrive in time"))
            else:
                self._deadline_s = watch.next_look_s(now_s)
        elif self.phase is Phase.LINGER and self._transport.get_write_buffer_size():
            # The answer has not left yet; that has a limit of its own.
            self._deadline_s = now_s + self._server.limits.linger_s
        else:
            self._transport.abort()

    def _look_for_client(self) -> None:
        """Check whether a client that has ended its input, or that is not read from, has gone."""
        if self._transport.is_closing():
            # Its descriptor may be another connection's by now.
            return
        sock = self._transport.get_extra_info("socket")
        if is_reset(sock) or (
            # While a body is not whole, the rest of it may still lie with the kernel.
            self._reader.is_whole
            and not self._has_eof
            and has_ended_input(sock)
            and not self.eof_received()
        ):
            self._transport.abort()

    def _wait(self, limit_s: float) -> None:
        self._deadline_s = self._server.loop.time() + limit_s

    # ---- reading -----------------------------------------------------------------------------------------

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()
