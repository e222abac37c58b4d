from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from loadtests.bench import sse_client
from loadtests.bench.raw_http import TimedConnection
from loadtests.bench.sse_client import Burst

EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
DONE = b"data: [DONE]\n\n"
BROKEN = b'data: {"error":{"message":"the engine stopped"}}\n\n'
WHOLE = (
    b'{"choices":[{"message":{"content":"a a"},"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}'
)

Answers = Callable[[list[bytes]], Awaitable[str]]


def chunked(pieces: list[bytes]) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + body
        + b"0\r\n\r\n"
    )


@pytest.fixture
async def answering() -> AsyncIterator[Answers]:
    """Starts a server that gives these answers, one for each request on a connection, then closes it."""
    servers: list[asyncio.Server] = []

    async def start(answers: list[bytes]) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(answer)
            writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return f"127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def burst(address: str, *, requests: int = 1, tokens: int = 2, stream: bool = True) -> Burst:
    return Burst(address, "m", ["p"] * requests, streams=1, tokens=tokens, stream=stream)


async def test_a_complete_stream_is_timed_event_by_event(answering: Answers) -> None:
    address = await answering([chunked([EVENT, EVENT, FINISH, USAGE % 2, DONE])] * 2)
    found = await sse_client.run(burst(address, requests=2))
    assert (found["errors"], found["tokens"]) == (0, 4)
    assert 0 < found["ttft_p50_ms"] <= found["ttft_p99_ms"] <= found["latency_p99_ms"]
    assert "itl_p50_ms" in found


@pytest.mark.parametrize(
    "pieces",
    [
        [EVENT, EVENT, FINISH, USAGE % 1, DONE],  # fewer tokens than asked for
        [EVENT, EVENT, FINISH, USAGE % 3, DONE],  # more
        [EVENT, EVENT, FINISH, DONE],  # no usage
        [EVENT, EVENT, FINISH, USAGE % 2, BROKEN],  # an error at the end
        [EVENT, EVENT, FINISH, USAGE % 2],  # no end
        [EVENT, EVENT, USAGE % 2, DONE],  # no finish reason
        [EVENT, EVENT, FINISH.replace(b"length", b"abort"), USAGE % 2, DONE],
        [EVENT, b"garbage\n\n", EVENT, FINISH, USAGE % 2, DONE],
        [b"data: {}\n\n", FINISH, USAGE % 2, DONE],
    ],
)
async def test_a_stream_that_is_not_what_was_asked_for_is_an_error(
    answering: Answers, pieces: list[bytes]
) -> None:
    found = await sse_client.run(burst(await answering([chunked(pieces)])))
    assert (found["errors"], found["tokens"], found["requests_per_s"]) == (1, 0, 0)


async def test_a_refusal_is_an_error_and_the_next_request_is_sent_all_the_same(
    answering: Answers,
) -> None:
    refusal = b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"
    address = await answering([refusal])
    found = await sse_client.run(burst(address, requests=3))
    assert found["errors"] == 3


async def test_a_connection_that_the_server_closes_between_requests_is_opened_again(
    answering: Answers,
) -> None:
    last = chunked([EVENT, EVENT, FINISH, USAGE % 2, DONE]).replace(
        b"OK\r\n", b"OK\r\nconnection: close\r\n"
    )
    found = await sse_client.run(burst(await answering([last]), requests=3))
    assert (found["errors"], found["tokens"]) == (0, 6)


async def test_nobody_listening_is_an_error_for_each_request() -> None:
    # Nobody listens on port 9 of the loopback interface.
    found = await sse_client.run(burst("127.0.0.1:9", requests=2))
    assert found["errors"] == 2


async def test_an_answer_that_is_not_streamed_has_a_latency_only(answering: Answers) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE)
    found = await sse_client.run(burst(await answering([answer]), stream=False))
    assert (found["errors"], found["tokens"]) == (0, 2)
    assert "latency_p50_ms" in found
    assert "ttft_p50_ms" not in found


def test_a_streamed_request_asks_for_its_usage() -> None:
    request = burst("host:1").request("Bonjour")
    assert b'"stream_options": {"include_usage": true}' in request
    assert b"Bonjour" in request
    assert b"stream_options" not in burst("host:1", stream=False).request("Bonjour")


async def test_events_are_counted_however_they_are_cut() -> None:
    stream = EVENT * 3 + DONE
    for size in (1, 2, 3, 7, 46, 47, 48, len(stream)):
        connection = TimedConnection()
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert sum(connection.count_events(piece) for piece in pieces) == 4, size
