"""A connection's phases: what is answered and in which order, what is refused, what ends it."""

from __future__ import annotations

import re

import pytest

from serving.http.connection import MAX_AHEAD_BYTES
from serving.http.phases import Phase
from tests.http.wire import (
    Place,
    answer,
    at_once,
    begin_stream,
    body_of,
    chunked,
    end_stream,
    get,
    post,
    scope_of,
)

CHUNKED = "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def paths(place: Place) -> list[str]:
    return [scope_of(exchange)["path"] for exchange in place.begun]


# ---- one request after the other -----------------------------------------------------------------------


def test_a_request_is_answered_and_the_connection_stays() -> None:
    place = Place()
    connection, transport = place.connect()
    for number in range(3):
        connection.data_received(post(b"body %d" % number, path=f"/{number}"))
        exchange = place.begun[-1]
        assert body_of(exchange) == b"body %d" % number
        answer(exchange, b"answer %d" % number, content_length="8")
        assert connection.phase is Phase.IDLE
    assert paths(place) == ["/0", "/1", "/2"]
    assert transport.written.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert not transport.is_closed


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_segments_may_be_cut_anywhere(size: int) -> None:
    place = Place()
    connection, _ = place.connect()
    raw = post(b"x" * 60, path="/a") + CHUNKED.encode() + b"\r\n" + chunked(b"y" * 60) + get("/b")
    for at in range(0, len(raw), size):
        connection.data_received(raw[at : at + size])
        if place.begun and not place.begun[-1].is_over and place.begun[-1].body_is_whole:
            answer(place.begun[-1])
    assert paths(place) == ["/a", "/a", "/b"]


def test_what_is_sent_ahead_is_answered_in_order_one_at_a_time() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/1") + get("/2") + post(b"three", path="/3"))
    assert paths(place) == ["/1"]
    answer(place.begun[0], b"one")
    assert paths(place) == ["/1", "/2"]
    answer(place.begun[1], b"two")
    assert body_of(place.begun[2]) == b"three"
    answer(place.begun[2], b"three")
    written = bytes(transport.written)
    assert written.index(b"one") < written.index(b"two") < written.index(b"three")


def test_a_head_behind_a_large_body_in_the_same_read_is_no_error() -> None:
    place = Place()
    connection, _ = place.connect()
    connection.data_received(post(b"x" * 200_000, path="/large") + get("/next"))
    assert len(body_of(place.begun[0])) == 200_000
    answer(place.begun[0])
    assert paths(place) == ["/large", "/next"]


def test_what_is_sent_ahead_is_bounded() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/1"))
    connection.data_received(get("/2"))
    assert not transport.is_paused
    connection.data_received(b"x" * 100_000)
    assert transport.is_paused
    answer(place.begun[0])
    assert transport.is_paused
    answer(place.begun[1])
    # What came is no request, and is thrown away.
    assert not transport.is_paused


def test_an_answer_makes_room_for_no_more_than_it_has_taken() -> None:
    place = Place()
    connection, transport = place.connect()
    ahead = get("/") * (2 * MAX_AHEAD_BYTES // len(get("/")))
    connection.data_received(ahead)
    number = 0
    while not place.begun[-1].is_over:
        left = len(ahead) - (number + 1) * len(get("/"))
        if left > MAX_AHEAD_BYTES:
            assert transport.is_paused
        elif left <= MAX_AHEAD_BYTES - len(get("/")):
            assert not transport.is_paused
        answer(place.begun[number])
        number += 1
    assert number == len(ahead) // len(get("/"))


def test_a_body_that_began_among_what_was_sent_ahead_is_read_on() -> None:
    place = Place()
    connection, transport = place.connect()
    padding = "x-a: " + "x" * 1000 + "\r\n"
    head = f"POST /2 HTTP/1.1\r\nhost: x\r\n{padding * 60}content-length: 20000\r\n\r\n".encode()
    connection.data_received(get("/1"))
    connection.data_received(head + b"x" * 10_000)
    assert transport.is_paused
    answer(place.begun[0])
    assert not transport.is_paused
    connection.data_received(b"y" * 10_000)
    assert len(body_of(place.begun[1])) == 20_000


def test_garbage_during_a_stream_does_not_touch_it() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/stream"))
    begin_stream(place.begun[0])
    place.begun[0].write(b"one")
    connection.data_received(b"\x16\x03\x01 what is this\r\n\r\n")
    place.begun[0].write(b"two")
    assert b"400" not in transport.written
    end_stream(place.begun[0])
    answered, _, refused = bytes(transport.written).partition(b"0\r\n\r\n")
    assert answered.endswith(b"3\r\none\r\n3\r\ntwo\r\n")
    assert refused.startswith(b"HTTP/1.1 400 ")


def test_an_answer_that_is_over_cannot_reach_into_the_next_one() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/1") + get("/2"))
    old = place.begun[0]
    begin_stream(old)
    end_stream(old)
    begin_stream(place.begun[1])
    before = len(transport.written)
    old.write(b"late")
    with pytest.raises(RuntimeError):
        at_once(old.send({"type": "http.response.body", "body": b"late"}))
    old.lose()
    assert len(transport.written) == before
    assert at_once(old.receive()) == {"type": "http.disconnect"}


# ---- Upgrade, CONNECT, Expect, HEAD, HTTP/1.0 ----------------------------------------------------------


@pytest.mark.parametrize(
    "connection_header", ["upgrade", "Upgrade, HTTP2-Settings", "keep-alive, Upgrade"]
)
@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
def test_a_body_after_an_offer_to_upgrade_is_a_body(connection_header: str, protocol: str) -> None:
    place = Place()
    connection, transport = place.connect()
    raw = post(SMUGGLED, f"connection: {connection_header}", f"upgrade: {protocol}", path="/a")
    connection.data_received(raw[: -len(SMUGGLED)])
    connection.data_received(SMUGGLED)
    assert paths(place) == ["/a"]
    assert body_of(place.begun[0]) == SMUGGLED
    answer(place.begun[0])
    connection.data_received(get("/b"))
    assert paths(place) == ["/a", "/b"]
    assert transport.written.count(b"HTTP/1.1") == 1


def test_a_chunked_body_after_an_offer_to_upgrade_is_a_body() -> None:
    place = Place()
    connection, _ = place.connect()
    head = CHUNKED + "connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    connection.data_received(head.encode() + chunked(SMUGGLED) + get("/b"))
    assert body_of(place.begun[0]) == SMUGGLED
    answer(place.begun[0])
    assert paths(place) == ["/a", "/b"]


def test_connect_is_refused_and_nothing_behind_it_is_a_request() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n" + SMUGGLED)
    connection.data_received(SMUGGLED)
    assert not place.begun
    assert transport.written.startswith(b"HTTP/1.1 405 ")
    assert connection.phase is Phase.LINGER


async def test_a_client_is_told_to_go_on_when_its_body_is_wanted() -> None:
    place = Place()
    connection, transport = place.connect()
    raw = post(b"body", "expect: 100-continue")
    connection.data_received(raw[:-4])
    assert not transport.written
    with pytest.raises(AssertionError, match="it waits"):
        at_once(place.begun[0].receive())
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.data_received(b"body")
    assert body_of(place.begun[0]) == b"body"
    answer(place.begun[0])
    assert transport.written.count(b"100 Continue") == 1
    assert connection.phase is Phase.IDLE


def test_a_body_that_nobody_wants_is_not_asked_for() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(post(b"body", "expect: 100-continue")[:-4])
    answer(place.begun[0])
    assert b"100" not in transport.written
    assert b"connection: close" in transport.written
    assert connection.phase is Phase.LINGER


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (get("/", "expect: 200-ok"), 417),
        (get("/", "x: " + "y" * 70_000), 431),
        (get("/", *["a: b"] * 300), 431),
        (get("/", version="2.0"), 505),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (get("/", "host: y"), 400),
        (get("nonsense"), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +3\r\n\r\nabc", 400),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_once_and_for_all(raw: bytes, status: int) -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(raw)
    connection.data_received(SMUGGLED)
    assert not place.begun
    assert transport.written.startswith(b"HTTP/1.1 %d " % status)
    assert len(re.findall(rb"HTTP/1\.1 \d", transport.written)) == 1
    assert b"connection: close" in transport.written
    assert connection.phase is Phase.LINGER


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/models?a=b#c", "/v1/models"),
        ("//v1/models", "//v1/models"),
        ("/%00", "/\0"),
        ("/v1%2fmodels", "/v1/models"),
        ("http://other/v1/models?a=b", "/v1/models"),
        ("http://other?a=b", "/"),
        ("*", "*"),
    ],
)
def test_targets(target: str, path: str) -> None:
    place = Place()
    connection, _ = place.connect()
    connection.data_received(get(target))
    scope = scope_of(place.begun[0])
    assert scope["path"] == path
    assert scope["query_string"] == (b"a=b" if "a=b" in target else b"")


def test_a_head_is_a_get_without_the_body() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n" + get("/b"))
    assert scope_of(place.begun[0])["method"] == "GET"
    answer(place.begun[0], b"body", content_length="4")
    assert transport.written.endswith(b"content-length: 4\r\n\r\n")
    assert paths(place) == ["/health", "/b"]


def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    begin_stream(place.begun[0])
    place.begun[0].write(b"one")
    place.begun[0].write(b"two")
    end_stream(place.begun[0])
    head, _, body = bytes(transport.written).partition(b"\r\n\r\n")
    assert body == b"onetwo"
    assert b"chunked" not in head
    assert b"connection: close" in head
    assert transport.has_eof


def test_http_1_0_can_keep_its_connection() -> None:
    place = Place()
    connection, transport = place.connect()
    for _ in range(2):
        connection.data_received(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        answer(place.begun[-1], content_length="2")
    assert transport.written.count(b"connection: keep-alive") == 2
    connection.data_received(b"GET / HTTP/1.0\r\n\r\n")
    answer(place.begun[-1], content_length="2")
    assert connection.phase is Phase.LINGER


def test_trailers_are_dropped() -> None:
    place = Place()
    connection, _ = place.connect()
    body = b"3\r\nabc\r\n0\r\nx-signature: 1\r\nhost: y\r\n\r\n"
    connection.data_received(CHUNKED.encode() + b"\r\n" + body + get("/b"))
    assert body_of(place.begun[0]) == b"abc"
    assert all(name != b"x-signature" for name, _ in scope_of(place.begun[0])["headers"])
    answer(place.begun[0])
    assert paths(place) == ["/a", "/b"]


def test_a_body_of_many_chunks_is_taken_a_part_at_a_time() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(CHUNKED.encode() + b"\r\n" + chunked(b"x" * 20_000, 10) + get("/b"))
    assert transport.is_paused
    rounds = 0
    while not place.begun[0].body_is_whole:
        rounds += 1
        place.run_soon()
    assert rounds > 3
    assert not transport.is_paused
    assert body_of(place.begun[0]) == b"x" * 20_000
    answer(place.begun[0])
    assert paths(place) == ["/a", "/b"]


def test_a_body_that_breaks_off_into_nonsense_ends_the_request() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(CHUNKED.encode() + b"\r\n3\r\nabc\r\n")
    exchange = place.begun[0]
    lost: list[int] = []
    exchange.on_lost = lambda: lost.append(1)
    connection.data_received(b"nonsense\r\n" + SMUGGLED)
    assert lost == [1]
    assert exchange.is_lost
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert len(place.begun) == 1


def test_an_error_of_the_body_is_not_written_into_an_answer_that_has_begun() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(CHUNKED.encode() + b"\r\n3\r\nabc\r\n")
    begin_stream(place.begun[0])
    connection.data_received(b"nonsense\r\n")
    assert b"400" not in transport.written
    assert transport.is_aborted


# ---- clients that end their input ------------------------------------------------------------------------


def test_a_client_that_half_closes_gets_its_answer() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(post(b"body"))
    assert connection.eof_received()
    place.wait(100)
    assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    answer(place.begun[0], content_length="2")
    assert transport.written.endswith(b"ok")
    assert transport.is_closed
    assert not transport.is_aborted


def test_a_stream_goes_on_after_a_half_close_with_nothing_in_it_that_counts() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get())
    begin_stream(place.begun[0])
    place.begun[0].write(b"one")
    assert connection.eof_received()
    place.begun[0].write(b"two")
    end_stream(place.begun[0])
    _, _, body = bytes(transport.written).partition(b"\r\n\r\n")
    assert body == b"3\r\none\r\n03\r\ntwo\r\n0\r\n\r\n"


def test_a_head_leaves_with_the_first_of_its_body() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/"))
    begin_stream(place.begun[0])
    assert transport.written == b""
    place.begun[0].write(b"first")
    assert transport.written.startswith(b"HTTP/1.1 200")
    assert transport.written.endswith(b"\r\n\r\n5\r\nfirst\r\n")


def test_what_is_sent_to_find_a_client_does_not_come_between_head_and_body() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/"))
    begin_stream(place.begun[0])
    assert connection.eof_received()
    place.begun[0].write(b"first")
    assert transport.written.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert transport.written.endswith(b"\r\n\r\n5\r\nfirst\r\n")


def test_a_head_without_a_body_leaves_too() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n")
    answer(place.begun[0])
    assert transport.written.startswith(b"HTTP/1.1 200")
    assert transport.written.endswith(b"\r\n\r\n")


def test_all_that_was_sent_ahead_of_a_half_close_is_answered() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/1") + get("/2") + get("/3") + b"GET /4")
    assert connection.eof_received()
    for number in range(3):
        assert not transport.is_closed
        answer(place.begun[number], content_length="2")
    assert paths(place) == ["/1", "/2", "/3"]
    assert transport.is_closed
    assert not transport.is_aborted
    assert transport.written.count(b"200 OK") == 3


def test_a_body_that_the_end_of_input_cuts_off_is_no_request() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/1") + post(b"body", path="/2")[:-1])
    assert connection.eof_received()
    answer(place.begun[0])
    assert paths(place) == ["/1"]
    assert b"HTTP/1.1 400 " in transport.written
    assert transport.is_closed


def test_http_1_0_gets_a_moment_after_a_half_close() -> None:
    place = Place()
    for seconds in (0.25, 1):
        connection, transport = place.connect()
        connection.data_received(get(version="1.0"))
        assert connection.eof_received()
        place.wait(seconds)
        assert transport.is_aborted == (seconds > 0.5)
        assert not transport.written


def test_a_request_that_is_not_whole_ends_with_the_input() -> None:
    place = Place()
    for raw in (b"", b"GET", post(b"body")[:-1]):
        connection, _ = place.connect()
        connection.data_received(raw)
        assert not connection.eof_received()


def test_at_the_end_nothing_is_left() -> None:
    place = Place()
    connections = [place.connect()[0] for _ in range(3)]
    connections[0].data_received(get())
    connections[1].data_received(b"GET")
    for connection in connections:
        connection.connection_lost(None)
        assert connection._deadline_s == float("inf")
        assert connection.exchange is None
    assert not place.table.connections
    assert not place.table.open_count
    assert place.begun[0].is_lost
