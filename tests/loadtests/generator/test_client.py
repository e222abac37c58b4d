"""The streaming client: every event is timed when it comes, and every way to fail has its word."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import gevent
import httptools
import orjson
import pytest

from loadtests.generator.answer import Answer
from loadtests.generator.client import Client, Endpoint
from loadtests.processes.free_ports import free_port
from loadtests.run.record import Record
from serving.errors import ConfigError

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[[socket.socket], None]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str, **more: object) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"delta": {"content": text}}], **more}) + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,' + (
    b'"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
)
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = FINISH + b"data: [DONE]\n\n"
END = b"0\r\n\r\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """A server in threads: each connection is given to the next script."""
    listeners: list[socket.socket] = []

    def start(*scripts: Script) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            for script in scripts:
                connection, _ = listener.accept()
                with closing(connection):
                    script(connection)

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def answering(*pieces: bytes | float) -> Script:
    """Read one request, then send the pieces; a number is a pause in seconds."""

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                connection.sendall(piece)

    return script


WHOLE = (
    b'{"choices":[{"message":{"content":"yes"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":1}}'
)


def whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def ask(url: str, timeout_s: float = 5.0, keep_text: bool = False) -> tuple[Record, Answer]:
    client = Client(Endpoint.parse(url), timeout_s=timeout_s)
    record = Record(0, "c", "chat", "m", "t")
    request = client.request_bytes("/v1/chat/completions", b"{}", {"authorization": "Bearer x"})
    answer = gevent.spawn(client.ask, request, record, keep_text=keep_text).get(timeout=20)
    client.close()
    return record, answer


def test_an_event_every_fifty_milliseconds_is_seen_every_fifty_milliseconds(serve) -> None:
    record, at_s = Record(0, "c", "chat", "m", "t"), [0.0]

    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(HEAD + chunk(event("")))
        for number, word in enumerate("abcdef"):
            at_s[0] += 0.05
            connection.sendall(chunk(event(word)))
            # The next one is sent when this one was seen: whoever holds events back, as Locust's own client
            # does, waits for ever.
            for _ in range(1000):
                if record.first_s is not None and len(record.gaps_ms) == number:
                    break
                time.sleep(0.005)
        connection.sendall(chunk(USAGE + DONE) + END)

    client = Client(Endpoint.parse(serve(script)), clock=lambda: at_s[0], timeout_s=20)
    request = client.request_bytes("/v1/chat/completions", b"{}", {})
    gevent.spawn(client.ask, request, record).get(timeout=20)
    client.close()
    assert record.error == ""
    assert (record.sent_s, record.first_s) == (0.0, 0.05)
    assert record.gaps_ms == [50.0] * 5
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (7, 3, 4)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_it_does_not_matter_where_the_pieces_are_cut(serve, cut: int) -> None:
    body = b": a comment\n\n" + event("one") + event("two").replace(b"\n", b"\r\n") + USAGE + DONE
    pieces = [chunk(body[at : at + cut]) for at in range(0, len(body), cut)]
    record, answer = ask(serve(answering(HEAD, b"".join(pieces), END)), keep_text=True)
    assert (record.error, answer.text, len(record.gaps_ms)) == ("", "onetwo", 1)


def test_reasoning_and_tool_calls_are_text_too(serve) -> None:
    reasoning = b'data: {"choices":[{"delta":{"reasoning":"hm"}}]}\n\n'
    call = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n'
    record, answer = ask(serve(answering(HEAD, chunk(reasoning), chunk(call), chunk(DONE), END)))
    assert record.first_s is not None
    assert len(record.gaps_ms) == 1
    assert answer.tool_calls


def test_an_answer_that_is_not_streamed(serve) -> None:
    record, answer = ask(serve(answering(whole(WHOLE))), keep_text=True)
    assert (record.status, record.error, record.first_s) == (200, "", None)
    assert (record.prompt_tokens, record.output_tokens, answer.text) == (2, 1, "yes")


@pytest.mark.parametrize(
    ("pieces", "word"),
    [
        ((HEAD, chunk(event("a")), END), "truncated"),
        ((HEAD, chunk(event("a"))), "truncated"),
        ((HEAD,), "truncated"),
        ((HEAD, chunk(event("a") + DONE)), "truncated"),  # HTTP's own end is missing
        ((whole(WHOLE)[:-1],), "truncated"),
        ((HEAD, chunk(event("a")), chunk(b'data: {"error":{"code":502}}\n\n'), END), "error_event"),
        ((HEAD, chunk(event("a")), chunk(b'data: {"error":{"code":502}}\n\n')), "error_event"),
        ((b"HTTP/1.1 429 Busy\r\ncontent-length: 2\r\n\r\n{}",), "http"),
        ((b"HTTP/1.1 429 Busy\r\ncontent-length: 2\r\n\r\n{",), "http"),
        ((HEAD, chunk(b"data: {no json\n\n"), END), "malformed"),
        ((HEAD, chunk(b"data: {no json\n\n"), 2.0), "malformed"),
        ((b"no http at all\r\n\r\n",), "malformed"),
        ((b"",), "reset"),
        ((b"HTTP/1.1 200 OK\r\n",), "reset"),
        ((HEAD, chunk(event("a")), 2.0), "timeout"),
    ],
)
def test_every_failure_has_its_word(serve, pieces: tuple[bytes | float, ...], word: str) -> None:
    # The second script is for the one retry of a connection that was idle; there is none here.
    record, _ = ask(serve(answering(*pieces)), timeout_s=0.15 if word == "timeout" else 5.0)
    assert record.error == word
    assert not record.is_ok
    assert record.end_s >= record.sent_s


def test_a_stream_that_hangs_after_an_error_event_ended_with_the_error() -> None:
    record = Record(0, "c", "chat", "m", "t")
    answer = Answer(record)
    answer.parser = httptools.HttpResponseParser(answer)
    answer.parser.feed_data(HEAD + chunk(b'data: {"error":{"code":502}}\n\n'))
    answer.timed_out()
    assert record.error == "error_event"


def test_a_body_without_a_length_ends_with_its_connection(serve) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: "
    for good in (
        head + b"text/event-stream\r\n\r\n" + event("a") + DONE,
        head + b"application/json\r\n\r\n" + WHOLE,
    ):
        record, _ = ask(serve(answering(good)))
        assert record.error == ""
    record, _ = ask(serve(answering(head + b"application/json\r\n\r\n" + WHOLE[:-1])))
    assert record.error == "malformed"


def test_nobody_listens(serve) -> None:
    record, _ = ask(f"http://127.0.0.1:{free_port()}")
    assert (record.status, record.error) == (0, "connect")


def test_connections_are_kept_and_one_that_was_closed_meanwhile_is_replaced(serve) -> None:
    def two(connection: socket.socket) -> None:
        for _ in range(2):
            connection.recv(65536)
            connection.sendall(whole(WHOLE))

    client = Client(Endpoint.parse(serve(two, answering(whole(WHOLE)))))
    request = client.request_bytes("/v1/chat/completions", b"{}", {})
    words = []
    for _ in range(3):
        record = Record(0, "c", "chat", "m", "t")
        gevent.spawn(client.ask, request, record).get(timeout=20)
        words.append((record.status, record.error))
        time.sleep(0.05)
    assert words == [(200, "")] * 3
    client.close()


def test_a_request_is_written_as_http(serve) -> None:
    client = Client(Endpoint.parse("https://name:secret@example.eu/base/v1"))
    request = client.request_bytes("/v1/embeddings", b"{}", {})
    assert request.startswith(b"POST /base/v1/embeddings HTTP/1.1\r\nhost: example.eu\r\n")
    assert b"authorization: Basic bmFtZTpzZWNyZXQ=\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://a:x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address; write it like"):
        Endpoint.parse(url)
