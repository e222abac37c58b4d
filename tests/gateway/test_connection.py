"""A connection carries one answer, however packets cut it, and gives nothing of it to the next request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.gateway.answer_reader import State
from serving.gateway.connection import ReplicaConnection
from serving.gateway.connection_errors import BrokenError, ClosedError, SilentError, UnreadError
from tests.gateway.leaping import run

MANY = 10**9

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Transport:
    """What a connection does to its socket."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closing = False
        self.reading = True
        self.unsent_bytes = 0

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Receiver:
    def __init__(self) -> None:
        self.data = b""
        self.ends: list[Exception | None] = []

    def receive(self, data: bytes) -> None:
        assert not self.ends
        self.data += data

    def end(self, error: Exception | None) -> None:
        self.ends.append(error)


def connect(
    silence_s: float = 60.0, pause_s: float = 60.0
) -> tuple[ReplicaConnection, Transport, list[Any]]:
    gone: list[Any] = []
    connection = ReplicaConnection(asyncio.get_running_loop(), silence_s, gone.append, pause_s)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport, gone


def chunked(*parts: bytes) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def sized(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), extra, body)


def cut(data: bytes, at: set[int]) -> list[bytes]:
    cuts = sorted(cut for cut in at if cut < len(data))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@unhurried
@given(
    parts=st.lists(st.binary(min_size=1, max_size=30), max_size=6),
    cuts=st.sets(st.integers(1, 300), max_size=12),
    piped=st.booleans(),
)
def test_a_body_arrives_whole_however_it_is_cut(
    parts: list[bytes], cuts: set[int], piped: bool
) -> None:
    async def run() -> None:
        connection, _, _ = connect()
        for body in (chunked(*parts), sized(b"".join(parts))):
            connection.send(b"request")
            receiver = Receiver()
            if piped:
                connection.pipe(receiver)
            for packet in cut(body, cuts):
                connection.data_received(packet)
            got = receiver.data if piped else await connection.fetch(MANY)
            assert got == b"".join(parts)
            assert connection.status == 200
            assert receiver.ends == ([None] if piped else [])
            assert connection.recycle()

    asyncio.run(run())


@unhurried
@given(keep=st.integers(0, 200), piped=st.booleans())
def test_an_answer_that_is_cut_short_is_broken(keep: int, piped: bool) -> None:
    body = chunked(b"data: 1\n\n", b"data: 2\n\n")

    async def run() -> None:
        connection, _, gone = connect()
        connection.send(b"request")
        receiver = Receiver()
        if piped:
            connection.pipe(receiver)
        connection.data_received(body[: min(keep, len(body) - 1)])
        connection.connection_lost(None)
        assert not connection.recycle()
        assert gone == [connection]
        if piped:
            assert [type(error) for error in receiver.ends] == [ClosedError]
        else:
            with pytest.raises(BrokenError):
                await connection.fetch(MANY)

    asyncio.run(run())


async def test_waiting_ends_with_the_first_bytes_of_the_body() -> None:
    connection, _, _ = connect()
    connection.send(b"request")
    waiting = asyncio.create_task(connection.begun())
    body = chunked(b"first", b"second")
    for packet in (body[:40], body[40 : body.index(b"5\r\nfirst")]):
        connection.data_received(packet)
        await asyncio.sleep(0)
        assert not waiting.done()
    connection.data_received(body[body.index(b"5\r\nfirst") :])
    await asyncio.wait_for(waiting, 1)
    assert (connection.status, connection.content_type) == (200, "text/event-stream")
    assert connection.take() == b"firstsecond"


async def test_an_answer_without_a_body_has_begun_when_it_is_complete() -> None:
    connection, _, _ = connect()
    connection.send(b"request")
    connection.data_received(sized(b"", b"503 Service Unavailable"))
    await asyncio.wait_for(connection.begun(), 1)
    assert connection.status == 503
    assert connection.recycle()


async def test_the_next_request_gets_nothing_of_the_last_answer() -> None:
    connection, _, _ = connect()
    connection.send(b"one")
    connection.data_received(sized(b"secret of one", b"400 Bad Request"))
    assert connection.recycle()
    connection.send(b"two")
    assert connection.status == 0
    connection.data_received(sized(b"two"))
    assert await connection.fetch(MANY) == b"two"


@pytest.mark.parametrize("late", [b"x", sized(b"another's answer")])
async def test_a_replica_that_speaks_unasked_is_not_used_again(late: bytes) -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    connection.data_received(sized(b"answer"))
    connection.data_received(late)
    assert transport.closing
    assert not connection.recycle()


async def test_two_answers_to_one_request_end_the_connection() -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    connection.data_received(sized(b"mine") + sized(b"another's"))
    assert transport.closing
    assert not connection.recycle()


async def test_what_is_not_http_is_broken() -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    connection.data_received(b"\x00\x01 nonsense\r\n\r\n")
    with pytest.raises(BrokenError):
        await connection.begun()
    assert transport.closing


async def test_a_replica_that_says_nothing_for_too_long_is_silent() -> None:
    connection, transport, _ = connect(silence_s=0.05)
    connection.send(b"request")
    with pytest.raises(SilentError):
        await asyncio.wait_for(connection.begun(), 1)
    assert transport.closing


async def test_silence_is_counted_from_the_last_bytes() -> None:
    connection, _, _ = connect(silence_s=0.1)
    connection.send(b"request")
    receiver = Receiver()
    connection.pipe(receiver)
    body = chunked(b"a" * 40)
    for start in range(0, 100, 20):
        await asyncio.sleep(0.05)
        connection.data_received(body[start : start + 20])
    assert receiver.ends == []
    await asyncio.sleep(0.2)
    assert [type(error) for error in receiver.ends] == [SilentError]


async def test_a_pause_of_ours_is_no_silence_of_the_replica() -> None:
    connection, transport, _ = connect(silence_s=0.05)
    connection.send(b"request")
    receiver = Receiver()
    connection.pipe(receiver)
    connection.data_received(chunked(b"data: 1\n\n", b"data: 2\n\n")[:-15])
    connection.pause()
    assert not transport.reading
    await asyncio.sleep(0.15)
    assert receiver.ends == []
    connection.resume()
    assert transport.reading
    await asyncio.sleep(0.15)
    assert [type(error) for error in receiver.ends] == [SilentError]


async def test_a_replica_that_closes_after_its_answer_is_not_asked_again() -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    connection.data_received(sized(b"bye", extra=b"connection: close\r\n"))
    assert await connection.fetch(MANY) == b"bye"
    assert transport.closing
    assert not connection.recycle()


async def test_a_connection_that_waits_for_an_answer_takes_no_request() -> None:
    connection, _, _ = connect()
    connection.send(b"one")
    with pytest.raises(RuntimeError):
        connection.send(b"two")


async def test_a_receiver_that_closes_hears_no_more() -> None:
    connection, transport, _ = connect()

    class Closing(Receiver):
        def receive(self, data: bytes) -> None:
            super().receive(data)
            connection.close()

    connection.send(b"request")
    receiver = Closing()
    connection.pipe(receiver)
    connection.data_received(chunked(b"data: 1\n\n"))
    assert transport.closing
    assert receiver.ends == []


# ---- nothing of one request reaches the next one -----------------------------------------------------------


class Pausing(Receiver):
    """The client is slow in every callback."""

    def __init__(self, connection: ReplicaConnection) -> None:
        super().__init__()
        self.connection = connection

    def receive(self, data: bytes) -> None:
        super().receive(data)
        self.connection.pause()


async def test_a_client_that_is_slow_in_the_last_callback_does_not_stop_the_next_answer() -> None:
    connection, transport, _ = connect()
    connection.send(b"one")
    receiver = Pausing(connection)
    connection.pipe(receiver)
    connection.data_received(sized(b"all of it"))
    assert receiver.ends == [None]
    assert connection.recycle()
    assert transport.reading
    connection.send(b"two")
    connection.data_received(sized(b"two"))
    assert await connection.fetch(MANY) == b"two"


async def test_a_connection_that_is_given_back_paused_is_closed() -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    receiver = Pausing(connection)
    connection.pipe(receiver)
    connection.data_received(chunked(b"first", b"second")[:-12])
    assert connection.state is State.PAUSED
    assert not connection.recycle()
    assert transport.closing


async def test_a_connection_whose_request_is_not_sent_yet_is_not_used_again() -> None:
    connection, transport, _ = connect()
    connection.send(b"a large request")
    transport.unsent_bytes = 7
    connection.data_received(sized(b"too large", b"413 Content Too Large"))
    assert await connection.fetch(MANY) == b"too large"
    assert not connection.recycle()
    assert transport.closing


async def test_interim_answers_are_passed_over() -> None:
    connection, _, _ = connect()
    connection.send(b"request")
    connection.data_received(b"HTTP/1.1 102 Processing\r\ncontent-type: text/x\r\n\r\n")
    assert connection.state is State.HEAD
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"answer"))
    assert await connection.fetch(MANY) == b"answer"
    assert (connection.status, connection.content_type) == (200, "")
    assert connection.recycle()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3000,
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 70_000,
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
    ids=["interim answers without end", "a head without end", "another protocol"],
)
async def test_a_head_that_is_none_is_broken(said: bytes) -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    for start in range(0, len(said), 10_000):
        connection.data_received(said[start : start + 10_000])
    with pytest.raises(BrokenError):
        await connection.begun()
    assert transport.closing


async def test_what_comes_after_a_complete_answer_does_not_change_it() -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    receiver = Receiver()
    connection.pipe(receiver)
    connection.data_received(sized(b"mine") + sized(b"another's"))
    assert (receiver.data, receiver.ends) == (b"mine", [None])
    assert transport.closing


async def test_no_more_is_held_than_is_wanted() -> None:
    connection, transport, _ = connect()
    connection.send(b"request")
    body = chunked(*([b"x" * 100_000] * 5))
    connection.data_received(body[:150_000])
    await connection.begun()
    assert transport.reading
    connection.data_received(body[150_000:300_000])
    assert not transport.reading
    assert len(await connection.fetch(290_000)) > 290_000
    assert connection.state is State.PAUSED
    receiver = Receiver()
    connection.pipe(receiver)
    assert transport.reading
    connection.data_received(body[300_000:])
    assert receiver.ends == [None]


async def test_who_waits_hears_of_a_connection_that_is_closed_here() -> None:
    connection, _, _ = connect()
    connection.send(b"request")
    waiting = asyncio.create_task(connection.begun())
    await asyncio.sleep(0)
    connection.close()
    with pytest.raises(ClosedError):
        await asyncio.wait_for(waiting, 1)


def test_an_answer_that_is_left_unread_for_too_long_ends_and_nobody_else_is_to_blame() -> None:
    async def main() -> None:
        connection, transport, _ = connect(silence_s=600.0, pause_s=90.0)
        connection.send(b"request")
        receiver = Pausing(connection)
        connection.pipe(receiver)
        connection.data_received(chunked(b"first", b"second")[:-12])
        await asyncio.sleep(89)
        assert not transport.closing
        await asyncio.sleep(2)
        assert transport.closing
        assert [type(error) for error in receiver.ends] == [UnreadError]

    run(main())


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_replica_that_does_not_wait_for_us_to_read_is_not_to_blame(resumed: bool) -> None:
    connection, _, _ = connect()
    connection.send(b"request")
    receiver = Pausing(connection)
    connection.pipe(receiver)
    connection.data_received(chunked(b"first", b"second")[:-12])
    if resumed:
        connection.resume()
    connection.connection_lost(ConnectionResetError())
    assert [type(error) for error in receiver.ends] == [UnreadError]
