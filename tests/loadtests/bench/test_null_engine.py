from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest

from loadtests.bench.null.engine import CHUNK_FRAME, EXTRA_EVENTS, NullEngine
from loadtests.bench.raw_http import TimedConnection, request_bytes

TOKEN = {"x-comptoir-token": "token"}


@dataclass
class Running:
    """A null engine on a loopback port, and a connection to it."""

    engine: NullEngine
    connection: TimedConnection
    address: str

    async def ask(
        self, body: Mapping[str, object], headers: Mapping[str, str] = TOKEN, path: str = ""
    ) -> float:
        request = request_bytes(self.address, headers, body)
        if path:
            request = request.replace(b"/v1/chat/completions", path.encode())
        return await self.connection.start(request)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    engine = NullEngine(b"token", interval_s=0.002)
    server = await asyncio.get_running_loop().create_server(engine.protocol, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connection = await TimedConnection.open(address)
    yield Running(engine, connection, address)
    connection.close()
    server.close()


async def test_a_stream_has_as_many_chunks_as_tokens_were_asked_for_and_its_end(
    running: Running,
) -> None:
    await running.ask({"stream": True, "max_tokens": 7})
    assert running.connection.events == 7 + EXTRA_EVENTS
    assert b"".join(running.connection.pieces).endswith(
        b'"stop_reason":null,"token_ids":null}]}\n\ndata: [DONE]\n\n'
    )
    assert running.connection.errors == 0


async def test_chunks_come_at_the_pace_and_in_frames_of_their_own(running: Running) -> None:
    seconds = await running.ask({"stream": True, "max_tokens": 10})
    assert seconds >= 10 * running.engine.interval_s
    # The last frame is the empty one that ends the body.
    assert running.connection.frames == 10 + EXTRA_EVENTS + 1


async def test_an_answer_that_is_not_streamed_comes_at_once_with_its_usage(
    running: Running,
) -> None:
    await running.ask({"stream": False, "max_tokens": 1000})
    answer = json.loads(b"".join(running.connection.pieces))
    assert answer["usage"]["completion_tokens"] == 64
    assert answer["choices"][0]["message"]["content"]


async def test_one_connection_takes_one_request_after_another(running: Running) -> None:
    for _ in range(3):
        await running.ask({"stream": True, "max_tokens": 1})
        await running.ask({})
    assert running.connection.events == 3 * (1 + EXTRA_EVENTS)
    assert len(running.engine.connections) == 1


@pytest.mark.parametrize(
    ("headers", "path"), [({}, ""), ({"x-comptoir-token": "other"}, ""), (TOKEN, "/v1/embeddings")]
)
async def test_it_is_as_closed_as_a_replica(
    running: Running, headers: dict[str, str], path: str
) -> None:
    await running.ask({"stream": True}, headers, path)
    assert (running.connection.errors, running.connection.events) == (1, 0)


async def test_a_body_that_is_no_json_object_is_refused(running: Running) -> None:
    request = request_bytes(running.address, TOKEN, {}).replace(b"{}", b"[]")
    await running.connection.start(request)
    assert running.connection.errors == 1


async def test_a_client_that_leaves_takes_its_stream_along(running: Running) -> None:
    done = running.connection.start(
        request_bytes(running.address, TOKEN, {"stream": True, "max_tokens": 100_000})
    )
    await running.connection.first
    running.connection.close()
    for _ in range(2000):
        await asyncio.sleep(0.001)
        if not running.engine.connections:
            break
    assert not running.engine.connections
    assert not done.done()


def test_a_chunk_is_as_long_as_vllms_own() -> None:
    assert 200 < len(CHUNK_FRAME) < 270
