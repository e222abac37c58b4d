"""Any client before one connection: whatever is sent, cut, late or broken off, each answer is its request's.

A client sends requests with a number each, whose bodies look like requests. The application answers with the
number that it was asked, early or late, whole or in pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import httptools
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.http.connection import MAX_AHEAD_BYTES, HttpConnection
from serving.http.exchange import Exchange
from serving.http.phases import Phase
from tests.http.wire import (
    Place,
    Transport,
    answer,
    at_once,
    begin_stream,
    chunked,
    end_stream,
    scope_of,
)

BODIES = st.sampled_from(
    [
        b"",
        b"{}",
        b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n" * 3,
        b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\r\n\r\n" * 50,
        b"x" * 70_000,
    ]
)
GARBAGE = st.sampled_from(
    [
        b"\x00",
        b"GET\n\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ]
)
# What ends a connection happens seldom, or little else would.
RARELY = st.sampled_from([False] * 7 + [True])
EXTRAS = st.lists(
    st.sampled_from(
        ["connection: upgrade\r\nupgrade: h2c\r\n", "expect: 100-continue\r\n", "accept: */*\r\n"]
    ),
    unique=True,
    max_size=3,
)


@dataclass
class Sent:
    method: str
    body: bytes


class Answers:
    """An independent reader of what the client gets."""

    def __init__(self, sent: list[Sent]) -> None:
        self._sent = sent
        self._parser = httptools.HttpResponseParser(self)
        self._read = 0
        self._body = b""
        self._status = 0
        self.complete: list[tuple[int, bytes]] = []

    def read(self, written: bytearray) -> None:
        data, self._read = bytes(written[self._read :]), len(written)
        if data:
            self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self._status, self._body = self._parser.get_status_code(), b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._status != 100:
            self.complete.append((self._status, self._body))


class OneConnection(RuleBasedStateMachine):
    @initialize()
    def connect(self) -> None:
        self.place = Place(head_timeout_s=10, idle_timeout_s=60, body_timeout_s=60)
        self.connection: HttpConnection
        self.transport: Transport
        self.connection, self.transport = self.place.connect()
        self.sent: list[Sent] = []
        self.answers = Answers(self.sent)
        self.outbox = bytearray()
        self.is_broken = self.has_ended = False
        self.bodies: dict[int, bytes] = {}
        self.streams: set[int] = set()

    # ---- the client ----------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_broken)
    @rule(
        body=BODIES, extras=EXTRAS, is_chunked=st.booleans(), size=st.sampled_from([16, 1000, 9000])
    )
    def send_request(self, body: bytes, extras: list[str], is_chunked: bool, size: int) -> None:
        number = len(self.sent)
        framing = "transfer-encoding: chunked" if is_chunked else f"content-length: {len(body)}"
        head = f"POST /{number} HTTP/1.1\r\nhost: x\r\n{''.join(extras)}{framing}\r\n\r\n"
        self.outbox += head.encode() + (chunked(body, size) if is_chunked else body)
        self.sent.append(Sent("POST", body))

    @precondition(lambda self: len(self.sent) > 2 and not self.is_broken)
    @rule(garbage=GARBAGE, now=RARELY)
    def send_garbage(self, garbage: bytes, now: bool) -> None:
        if not now:
            return
        self.outbox += garbage
        self.is_broken = True

    @precondition(lambda self: self.outbox)
    @rule(
        size=st.one_of(
            st.integers(1, 80), st.integers(1000, 100_000), st.just(1_000_000), st.just(1_000_000)
        )
    )
    def deliver(self, size: int) -> None:
        if self.outbox and not (
            self.transport.is_paused or self.transport.is_closed or self.has_ended
        ):
            data = bytes(self.outbox[:size])
            del self.outbox[:size]
            self.connection.data_received(data)

    @precondition(lambda self: self.place.soon)
    @rule()
    def run_soon(self) -> None:
        self.place.run_soon()

    @precondition(lambda self: len(self.sent) > 1)
    @rule(now=RARELY)
    def end_input(self, now: bool) -> None:
        if (
            now
            and not self.has_ended
            and not self.transport.is_closed
            and not self.transport.is_paused
        ):
            self.has_ended = True
            if not self.connection.eof_received():
                self.transport.close()

    @precondition(lambda self: self.sent)
    @rule(seconds=st.sampled_from([0.3] * 9 + [4, 12]))
    def wait(self, seconds: float) -> None:
        self.place.wait(seconds)

    # ---- the application -----------------------------------------------------------------------------

    @property
    def current(self) -> Exchange | None:
        return self.connection.exchange

    @precondition(lambda self: self.current is not None)
    @rule()
    def read_body(self) -> None:
        exchange = self.current
        assert exchange is not None
        number = int(scope_of(exchange)["path"][1:])
        while exchange._pieces or (exchange.body_is_whole and not exchange._told_end):
            self.bodies[number] = self.bodies.get(number, b"") + at_once(exchange.receive())["body"]

    @precondition(lambda self: self.current is not None and not self.current.has_begun)
    @rule(has_length=st.booleans(), early=RARELY)
    def answer_at_once(self, has_length: bool, early: bool) -> None:
        assert self.current is not None
        if not self.current.body_is_whole and not early:
            return
        body = scope_of(self.current)["path"].encode()
        headers = {"content_length": str(len(body))} if has_length else {}
        answer(self.current, body, **headers)

    @precondition(lambda self: self.current is not None and not self.current.has_begun)
    @rule()
    def begin_a_stream(self) -> None:
        assert self.current is not None
        begin_stream(self.current)

    @precondition(lambda self: self.current is not None and self.current.has_begun)
    @rule(early=RARELY)
    def end_the_stream(self, early: bool) -> None:
        assert self.current is not None
        if not self.current.body_is_whole and not early:
            return
        for byte in scope_of(self.current)["path"].encode():
            self.current.write(bytes([byte]))
        end_stream(self.current)

    @precondition(lambda self: any(one is not self.current for one in self.place.begun))
    @rule()
    def write_too_late(self) -> None:
        for exchange in self.place.begun:
            if exchange is not self.current:
                exchange.write(b"somebody else's")

    # ---- what always holds ---------------------------------------------------------------------------

    @invariant()
    def what_was_sent_ahead_is_bounded(self) -> None:
        if self.connection.phase is Phase.BUSY and not self.transport.is_closed:
            ahead = self.connection._reader.waiting_bytes
            assert ahead <= MAX_AHEAD_BYTES or self.transport.is_paused

    @invariant()
    def only_requests_are_requests_and_in_order(self) -> None:
        paths = [scope_of(exchange)["path"] for exchange in self.place.begun]
        assert paths == [f"/{number}" for number in range(len(paths))]
        assert len(paths) <= len(self.sent)

    @invariant()
    def bodies_are_what_was_sent(self) -> None:
        for number, body in self.bodies.items():
            assert self.sent[number].body.startswith(body)

    @invariant()
    def each_answer_is_its_requests(self) -> None:
        self.answers.read(self.transport.written)
        for number, (status, body) in enumerate(self.answers.complete):
            if status == 200:
                assert body == b"/%d" % number
            else:
                assert number == len(self.answers.complete) - 1
                assert status in (400, 405, 408)

    @invariant()
    def one_deadline_where_one_is_due(self) -> None:
        connection = self.connection
        if connection.phase in (Phase.IDLE, Phase.HEAD, Phase.LINGER):
            assert connection._deadline_s < math.inf
            assert connection.exchange is None
        if connection.phase is Phase.BUSY and connection.exchange is not None:
            assert connection.exchange.body_is_whole == connection._reader.is_whole
            assert (connection._deadline_s < math.inf) != connection.exchange.body_is_whole

    def teardown(self) -> None:
        if not hasattr(self, "place"):
            return
        self.each_answer_is_its_requests()
        while self.current is not None:
            # An application that is told that its client has gone leaves.
            if not self.transport.is_closed:
                self.transport.abort()
        self.place.wait(1000)
        assert self.transport.is_closed
        table = self.place.table
        assert not table.connections
        assert table._unrecognised == 0
        assert not table._strangers
        assert not table._resting
        assert self.connection._deadline_s == math.inf
        assert self.connection._stall._until_s == math.inf or self.transport.is_closed
        assert all(exchange.is_over or exchange.is_lost for exchange in self.place.begun)


TestOneConnection = OneConnection.TestCase
TestOneConnection.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
