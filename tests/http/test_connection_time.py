"""How long anything may take on a connection, and what a client may leave unread."""

from __future__ import annotations

import errno

import pytest

from serving.http.phases import Phase
from serving.http.watches import RATE_WINDOW_S
from tests.http.wire import (
    Place,
    answer,
    at_once,
    begin_stream,
    get,
    post,
)

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("requests", [0, 1, 3])
def test_every_head_has_its_time_not_only_the_first(requests: int) -> None:
    place = Place(head_timeout_s=5)
    connection, transport = place.connect()
    for _ in range(requests):
        connection.data_received(get())
        answer(place.begun[-1])
    for _ in range(5):
        assert b"408" not in transport.written
        connection.data_received(b"G" if connection.phase is Phase.IDLE else b"E")
        place.wait(0.9)
    place.wait(1)
    assert b"HTTP/1.1 408 " in transport.written
    place.wait(60)
    assert transport.is_closed
    assert not place.table.connections


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    place = Place(head_timeout_s=5)
    _, transport = place.connect()
    place.wait(6)
    assert transport.is_closed
    assert not transport.written


def test_a_connection_may_rest_between_requests_and_not_for_ever() -> None:
    place = Place(head_timeout_s=5, idle_timeout_s=20)
    connection, transport = place.connect()
    for _ in range(3):
        connection.data_received(get())
        answer(place.begun[-1])
        place.wait(19)
    assert not transport.is_closed
    place.wait(2)
    assert transport.is_closed
    assert b"408" not in transport.written


def test_an_application_may_take_its_time() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(post(b"body"))
    place.wait(3600)
    assert not transport.is_closed
    answer(place.begun[0])
    assert connection.phase is Phase.IDLE


def test_a_body_that_trickles_is_refused() -> None:
    place = Place(body_timeout_s=100, body_min_bytes_per_s=10)
    connection, transport = place.connect()
    connection.data_received(post(b"x" * 10_000)[:-10_000])
    for _ in range(int(RATE_WINDOW_S)):
        connection.data_received(b"x")
        place.wait(1)
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert place.begun[0].is_lost


def test_a_body_at_the_least_rate_may_take_the_whole_limit_and_no_longer() -> None:
    place = Place(body_timeout_s=100, body_min_bytes_per_s=10)
    connection, transport = place.connect()
    connection.data_received(post(b"x" * 10_000)[:-10_000])
    for _ in range(99):
        connection.data_received(b"x" * 20)
        place.wait(1)
    assert not transport.written
    place.wait(2)
    assert transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_the_application_does_not_read_is_not_called_slow() -> None:
    place = Place(body_timeout_s=100, body_min_bytes_per_s=10)
    connection, transport = place.connect()
    connection.data_received(post(b"x" * 200_000)[:-100_000])
    assert transport.is_paused
    place.wait(50)
    assert not transport.written
    at_once(place.begun[0].receive())
    assert not transport.is_paused


def test_after_an_early_answer_the_rest_of_the_body_is_read_for_a_while() -> None:
    place = Place(linger_s=5)
    connection, transport = place.connect()
    connection.data_received(post(b"x" * 10_000)[:-10_000])
    answer(place.begun[0])
    assert b"connection: close" in transport.written
    assert transport.has_eof
    for _ in range(4):
        connection.data_received(b"x" * 100 + SMUGGLED)
        place.wait(1)
        assert not transport.is_closed
    place.wait(2)
    assert transport.is_closed
    assert len(place.begun) == 1


def test_and_not_more_than_a_certain_amount_of_it() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(post(b"x" * 100)[:-100])
    answer(place.begun[0])
    for _ in range(9):
        connection.data_received(b"x" * 1024 * 1024)
    assert transport.is_aborted


def test_a_client_that_ends_its_side_after_the_last_answer_is_let_go() -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/", "connection: close"))
    answer(place.begun[0])
    assert transport.has_eof
    assert connection.phase is Phase.LINGER
    assert not connection.eof_received()


def test_a_client_that_takes_nothing_loses_its_stream() -> None:
    place = Place(write_stall_s=10)
    connection, transport = place.connect()
    connection.data_received(get())
    exchange = place.begun[0]
    lost: list[int] = []
    exchange.on_lost = lambda: lost.append(1)
    begin_stream(exchange)
    transport.backlog = 70_000
    connection.pause_writing()
    assert exchange.is_slow
    place.wait(9)
    assert not lost
    place.wait(2)
    assert lost == [1]
    assert transport.is_aborted


def test_a_client_that_is_slow_now_and_then_keeps_it() -> None:
    place = Place(write_stall_s=10)
    connection, transport = place.connect()
    connection.data_received(get())
    begin_stream(place.begun[0])
    writable: list[int] = []
    place.begun[0].on_writable = lambda: writable.append(1)
    for _ in range(5):
        transport.backlog = 70_000
        connection.pause_writing()
        place.wait(9)
        transport.backlog = 10_000
        connection.resume_writing()
        place.wait(9)
    assert len(writable) == 5
    assert not transport.is_closed


def test_a_client_that_takes_a_little_at_a_time_keeps_it() -> None:
    place = Place(write_stall_s=10)
    connection, transport = place.connect()
    connection.data_received(get())
    begin_stream(place.begun[0])
    transport.backlog = 400_000
    connection.pause_writing()
    for _ in range(5):
        transport.backlog -= 50_000
        place.wait(10)
    assert not transport.is_closed


def test_an_answer_that_is_whole_must_be_taken_too() -> None:
    place = Place(write_stall_s=10, idle_timeout_s=1000)
    connection, transport = place.connect()
    connection.data_received(get())
    transport.backlog = 5000
    answer(place.begun[0])
    place.wait(11)
    assert transport.is_aborted


def test_the_last_answer_may_take_longer_than_the_connection_lingers() -> None:
    place = Place(write_stall_s=30, linger_s=5)
    connection, transport = place.connect()
    connection.data_received(get("/", "connection: close"))
    transport.backlog = 5000
    answer(place.begun[0])
    place.wait(20)
    assert not transport.is_closed
    transport.backlog = 0
    place.wait(6)
    assert transport.is_closed


def test_a_client_that_has_reset_the_connection_is_no_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place()
    connection, transport = place.connect()
    connection.data_received(get("/", "connection: close"))

    def refuse() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(transport, "write_eof", refuse)
    answer(place.begun[0])
    transport.lose()
    assert transport.is_closed
