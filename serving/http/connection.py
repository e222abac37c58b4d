"""One client's connection: the state machine of its requests and answers.

           the PROXY header, where one is due
    PROXY ─────────────────────────────────▶ IDLE ◀──────────────────────────────────┐
      │                                      │  │                                    │
      │                      the first bytes │  │ rested too long, evicted,          │ answer and body are
      │                                      ▼  │ or the listener closes             │ whole, and neither side
      │ malformed, or too late             HEAD ┼──────────────────────────┐         │ wants to close; what
      │                                      │  │ evicted                  │         │ came is the next head
      │                       the head's end │  │                          │         │
      │                                      ▼  │                          │         │
      │                                     BUSY ┼───────────────────────────────────┘
      │                                      │   │ the client has gone, or    │
      │  malformed, too large or too late,   │   │ takes nothing of its answer│
      │  or the connection's last answer     ▼   │                            ▼
      └─────────────────────────────────▶ LINGER ┴──────────────────────▶ CLOSED
                                                  end of input, or too late

PROXY, IDLE, HEAD, LINGER and a body that is not whole have one deadline at a time. BUSY with a whole body has
none: the application's own hold. What is ready for the client and is not taken has the stall limit, always.
`check` looks at both a few times a second, so that nothing has to be armed and disarmed for each request.

In BUSY nothing is parsed but the request's own body: what a client sends ahead stays bytes until its turn,
and when that is too much, no more is read. In LINGER what comes is thrown away: to close with unread bytes
makes the kernel send a reset, which can take the answer from the client (RFC 9112, 9.6).

The end of input in BUSY: a client that half-closes waits for its answer, one that has closed does not, and
the two look alike. So something that means nothing is sent (`Exchange.probe`). A client that has closed
answers it with a reset, and `check` sees that. HTTP/1.0 has nothing of the kind before an answer begins;
there a client gets HALF_CLOSE_GRACE_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.config.connections import ConnectionsConfig
from serving.errors import ComptoirError, MalformedHttpError, RequestTimeoutError
from serving.http.answers import error_answer
from serving.http.exchange import Exchange
from serving.http.peer import Peer
from serving.http.requests import Head, RequestReader
from serving.http.watches import BodyWatch, StallWatch
from serving.tcp import has_ended_input, is_reset, reset

if TYPE_CHECKING:
    from serving.http.table import ConnectionTable

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024
# What a client may send ahead before no more is read, and after its connection's last answer.
MAX_AHEAD_BYTES = 64 * 1024
MAX_LINGER_BYTES = 8 * 1024 * 1024
HALF_CLOSE_GRACE_S = 0.5
# A connection that was accepted just before the listener closed has so long to send its request.
LAST_HEAD_S = 1.0


class Phase(enum.Enum):
    """Drawn at the top of this file."""

    PROXY = enum.auto()
    IDLE = enum.auto()
    HEAD = enum.auto()
    BUSY = enum.auto()
    LINGER = enum.auto()
    CLOSED = enum.auto()


@dataclass(frozen=True)
class Server:
    """What all connections of a listener share."""

    app: Any
    limits: ConnectionsConfig
    table: ConnectionTable
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context

    def protocol(self) -> HttpConnection:
        """A protocol for one more connection."""
        return HttpConnection(self)

    def begin(self, exchange: Exchange) -> None:
        """Give a request to the application."""
        # Not in the context of whoever calls: a request that was sent ahead begins where another's task ends.
        coroutine = exchange.run(self.app)
        exchange.task = self.loop.create_task(coroutine, context=self.context.copy())


class HttpConnection(asyncio.Protocol):
    """What asyncio, the `Exchange` in progress, the table and the listener tell one connection."""

    __slots__ = (
        "_body_watch",
        "_deadline_s",
        "_has_eof",
        "_is_paused",
        "_lingered",
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
        self._lingered = 0
        self._deadline_s = math.inf
        self._body_watch: BodyWatch | None = None

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

    def eof_received(self) -> bool:
        """Returns: whether the connection stays open for an answer."""
        self._has_eof = True
        exchange = self.exchange
        if self.phase is not Phase.BUSY or exchange is None or not self._reader.is_whole:
            return False
        self._probe(exchange)
        return True

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

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = Phase.CLOSED
        self._deadline_s = math.inf
        self.is_slow = False
        self._server.table.remove(self)
        exchange = self._take_exchange()
        if exchange is not None:
            exchange.lose()

    # ---- requests ----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Do what can be done with what has arrived."""
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
        """Go on with a body of many small chunks, after others had a turn."""
        if self.phase is Phase.BUSY and self._reader.is_behind:
            self._resume()
            self._advance()

    # ---- for the exchange --------------------------------------------------------------------------------

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with the present answer."""
        return self._server.table.is_draining or self._has_heard_all

    def recognise(self, exchange: Exchange, who: str) -> None:
        """A key was accepted."""
        if not self.is_recognised:
            self._server.table.recognise(self)
        if exchange is self.exchange:
            self.peer.recognised(who)

    def body_was_read(self) -> None:
        """The application has taken what there was of the body."""
        self._resume()
        if self._reader.is_behind:
            self._advance()

    def answered(self, exchange: Exchange) -> None:
        """The answer is whole; the next request, if the connection is good for one."""
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

    # ---- the end -----------------------------------------------------------------------------------------

    def _linger(self) -> None:
        """Say that nothing more will come, and read until the client says the same."""
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
        """Close when what is written has left."""
        self.phase = Phase.CLOSED
        self._deadline_s = math.inf
        self._transport.close()

    def abort(self) -> None:
        """Close at once, with a reset: what is unread is dropped here and there."""
        reset(self._transport)

    def retire(self) -> None:
        """The listener closes: end, unless something is going on or a first request may be on its way."""
        if self.phase is Phase.IDLE and self.requests:
            self.close()
        elif self.phase in (Phase.IDLE, Phase.HEAD, Phase.PROXY):
            self._deadline_s = min(self._deadline_s, self._server.loop.time() + LAST_HEAD_S)

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
        """Of a client that has ended its input, or that is not read from, see whether it has gone."""
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

    @property
    def _has_heard_all(self) -> bool:
        """Whether the client has ended its input, and all of that has been worked on."""
        return self._has_eof and not self._reader.waiting_bytes

    def _probe(self, exchange: Exchange) -> None:
        """Find out whether a client that has ended its input has gone."""
        if exchange.can_be_probed:
            exchange.probe()
        elif not exchange.has_begun:
            self._wait(HALF_CLOSE_GRACE_S)

    def _wait(self, limit_s: float) -> None:
        self._deadline_s = self._server.loop.time() + limit_s

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def _take_exchange(self) -> Exchange | None:
        """The exchange in progress; from now on there is none."""
        exchange, self.exchange = self.exchange, None
        self._body_watch = None
        self.peer.end_request()
        return exchange
