"""How many connections there may be, and which goes when there are too many."""

from __future__ import annotations

import pytest

from serving.errors import TooManyConnectionsError
from serving.http.connection import HttpConnection
from serving.http.phases import Phase
from tests.http.wire import Place, Transport, answer, get


def ask(place: Place, connection: HttpConnection, *, with_key: bool = False) -> None:
    connection.data_received(get())
    if with_key:
        place.begun[-1].recognised()


def status(transport: Transport) -> bytes:
    return bytes(transport.written[:12])


def test_who_asks_nothing_makes_room_for_who_does() -> None:
    place = Place(max_unauthenticated=10, max_per_address=None)
    slow = [place.connect()[1] for _ in range(10)]
    for _ in range(100):
        connection, transport = place.connect()
        ask(place, connection, with_key=True)
        answer(place.begun[-1])
        assert status(transport) == b"HTTP/1.1 200"
        assert not transport.is_closed
    # Each good client was a stranger for a moment; only the first of them needed somebody's place.
    assert sum(transport.is_closed for transport in slow) == 1


def test_the_oldest_stranger_goes_first() -> None:
    place = Place(max_unauthenticated=3, max_per_address=None)
    transports = [place.connect()[1] for _ in range(5)]
    assert [transport.is_closed for transport in transports] == [True, True, False, False, False]


def test_strangers_go_before_those_with_a_key_and_open_requests_stay() -> None:
    place = Place(max_connections=3, max_unauthenticated=None, max_per_address=None)
    busy, known, stranger = (place.connect() for _ in range(3))
    ask(place, busy[0])
    ask(place, known[0], with_key=True)
    answer(place.begun[-1])
    newcomers = [place.connect() for _ in range(2)]
    assert stranger[1].is_closed
    assert not known[1].is_closed
    for newcomer in newcomers:
        ask(place, newcomer[0])
    assert not busy[1].is_closed
    place.connect()
    assert known[1].is_closed


def test_when_all_are_busy_a_newcomer_is_told_so() -> None:
    place = Place(max_connections=2, max_unauthenticated=None, max_per_address=None)
    for _ in range(2):
        ask(place, place.connect()[0])
    for _ in range(5):
        connection, transport = place.connect()
        assert status(transport) == b"HTTP/1.1 503"
        assert connection.phase in (Phase.LINGER, Phase.CLOSED)
        connection.data_received(get())
    assert len(place.begun) == 2
    # Those that were refused make room for each other.
    assert len(place.table.connections) <= 3


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::1"])
def test_an_address_has_its_number_and_others_are_not_concerned(peer: str) -> None:
    place = Place(max_per_address=3)
    for _ in range(3):
        ask(place, place.connect(peer)[0])
    _, refused = place.connect(peer)
    assert status(refused) == b"HTTP/1.1 429"
    other, transport = place.connect("198.51.100.1")
    ask(place, other)
    assert not transport.written


def test_an_ipv6_network_is_one_address() -> None:
    place = Place(max_per_address=3)
    for number in range(3):
        ask(place, place.connect(f"2001:db8::{number + 1}")[0])
    assert status(place.connect("2001:db8::ffff")[1]) == b"HTTP/1.1 429"
    assert not place.connect("2001:db8:0:1::1")[1].written


def test_an_address_that_rests_makes_room_for_itself() -> None:
    place = Place(max_per_address=3)
    first = place.connect()[1]
    for _ in range(5):
        connection, transport = place.connect()
        ask(place, connection)
        answer(place.begun[-1])
        assert status(transport) == b"HTTP/1.1 200"
    assert first.is_closed
    assert len(place.table.connections) == 3


def test_with_a_key_an_address_may_have_more() -> None:
    place = Place(max_per_address=3, trusted_proxies=["10.0.0.0/8"])
    for _ in range(10):
        connection, transport = place.connect()
        ask(place, connection, with_key=True)
        assert not transport.written
        forwarded, transport = place.connect("10.0.0.1")
        forwarded.data_received(get("/", "x-forwarded-for: 203.0.113.5"))
        place.begun[-1].recognised()
        assert not transport.written
        assert place.begun[-1]._scope()["client"][0] == "203.0.113.5"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_has_no_number(peer: str) -> None:
    place = Place(max_per_address=1)
    for _ in range(5):
        connection, transport = place.connect(peer)
        ask(place, connection)
        assert not transport.written


def test_a_trusted_proxys_clients_are_counted_by_their_open_requests() -> None:
    place = Place(max_per_address=2, trusted_proxies=["192.0.2.0/24"])

    def forward(client: str) -> Transport:
        connection, transport = place.connect()
        connection.data_received(get("/", f"x-forwarded-for: {client}"))
        return transport

    first = [forward("203.0.113.5") for _ in range(2)]
    assert status(forward("203.0.113.5")) == b"HTTP/1.1 429"
    assert not forward("203.0.113.6").written
    answer(place.begun[0])
    assert status(first[0]) == b"HTTP/1.1 200"
    assert not forward("203.0.113.5").written
    first[1].abort()
    assert not forward("203.0.113.5").written


def test_a_request_without_the_header_is_the_proxys_own() -> None:
    place = Place(trusted_proxies=["192.0.2.0/24"])
    connection, _ = place.connect()
    for headers, client in (
        (["x-forwarded-for: 203.0.113.5"], "203.0.113.5"),
        ([], "192.0.2.7"),
        (["x-forwarded-for: 203.0.113.6"], "203.0.113.6"),
    ):
        connection.data_received(get("/", *headers))
        assert place.begun[-1]._scope()["client"][0] == client
        answer(place.begun[-1])


def test_what_others_say_of_themselves_is_not_believed() -> None:
    place = Place(max_per_address=2, trusted_proxies=["10.0.0.0/8"])
    for number in range(2):
        connection, _ = place.connect()
        connection.data_received(get("/", f"x-forwarded-for: 203.0.113.{number}"))
    assert status(place.connect()[1]) == b"HTTP/1.1 429"


def test_the_proxy_protocol_names_who_is_counted() -> None:
    place = Place(max_per_address=1, trusted_proxies=["192.0.2.0/24"], proxy_protocol=True)

    def forward(client: str) -> Transport:
        connection, transport = place.connect()
        connection.data_received(f"PROXY TCP4 {client} 192.0.2.1 1 2\r\n".encode() + get())
        return transport

    assert not forward("203.0.113.5").written
    assert status(forward("203.0.113.5")) == b"HTTP/1.1 429"
    assert not forward("203.0.113.6").written
    assert place.begun[-1]._scope()["client"] == ("203.0.113.6", 0)


def test_a_trusted_proxy_without_its_header_is_refused_and_others_need_none() -> None:
    place = Place(trusted_proxies=["192.0.2.0/24"], proxy_protocol=True)
    connection, transport = place.connect()
    connection.data_received(get())
    assert status(transport) == b"HTTP/1.1 400"
    other, _ = place.connect("198.51.100.1")
    other.data_received(get())
    assert len(place.begun) == 1
    other, transport = place.connect("198.51.100.1")
    other.data_received(b"PROXY TCP4 203.0.113.5 192.0.2.1 1 2\r\n" + get())
    assert status(transport) == b"HTTP/1.1 400"


def test_nothing_is_left_of_connections_that_are_closed() -> None:
    place = Place(max_per_address=5, trusted_proxies=["10.0.0.0/8"])
    for peer in ("192.0.2.1", "10.0.0.1", "2001:db8::1"):
        for with_key in (False, True):
            connection, _ = place.connect(peer)
            connection.data_received(get("/", "x-forwarded-for: 203.0.113.1"))
            if with_key:
                place.begun[-1].recognised()
    for connection in list(place.table.connections):
        connection.abort()
    table = place.table
    assert not (table.connections)
    assert not (table._strangers)
    assert not (table._resting)
    assert not (table._addresses)
    assert not table._forwarded
    assert table._unrecognised == 0


def test_a_stranger_who_does_not_read_its_answer_goes_first() -> None:
    place = Place(max_unauthenticated=3, max_per_address=None)
    hogs = [place.connect() for _ in range(2)]
    resting, _ = place.connect()
    for connection, _ in hogs:
        ask(place, connection)
        connection.pause_writing()
    # One reads after all, and is as good as any.
    hogs[1][0].resume_writing()
    for number in range(20):
        connection, transport = place.connect()
        ask(place, connection, with_key=True)
        answer(place.begun[-1])
        assert status(transport) == b"HTTP/1.1 200", number
    assert hogs[0][1].is_closed
    assert not hogs[1][1].is_closed
    assert resting.phase is Phase.IDLE
    assert not place.table._unread


def test_who_has_shown_a_key_may_read_slowly() -> None:
    place = Place(max_connections=2, max_unauthenticated=None, max_per_address=None)
    good = place.connect()
    ask(place, good[0])
    good[0].pause_writing()
    place.begun[-1].recognised()
    place.connect()
    place.connect()
    assert not good[1].is_closed


def test_one_key_leaves_room_for_others() -> None:
    place = Place(max_connections=12, max_unauthenticated=None, max_per_address=None)
    hogs = []
    for _ in range(6):
        hogs.append(place.connect())
        ask(place, hogs[-1][0])
        place.begun[-1].recognised("hog")
    for _ in range(6):
        connection, _ = place.connect()
        ask(place, connection)
        with pytest.raises(TooManyConnectionsError, match="your requests"):
            place.begun[-1].recognised("hog")
        answer(place.begun[-1])
    # The hog has half; the next one half of what is left, and so on.
    for who in ("b", "b", "b", "c"):
        good = place.connect()
        ask(place, good[0])
        place.begun[-1].recognised(who)
        place.begun[-1].recognised(who)
    assert place.table._claims == {"hog": 6, "b": 3, "c": 1}
    # Whoever rests can go: that is room.
    answer(place.begun[-1])
    hogs[0][1].lose()
    hogs[1][0].refuse(TooManyConnectionsError("for any reason"))
    assert place.table._claims == {"hog": 4, "b": 3}


def test_a_request_that_is_over_claims_nothing() -> None:
    place = Place(max_per_address=None)
    connection, transport = place.connect()
    ask(place, connection)
    exchange = place.begun[-1]
    transport.lose()
    exchange.recognised("a")
    assert not place.table._claims
