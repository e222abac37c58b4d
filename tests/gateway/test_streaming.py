"""Streams pass through byte for byte; either side may go away at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.gateway.render import anthropic_error, openai_error
from serving.gateway.streaming import ClientLeftError, StreamedAnswer, unless_client_leaves
from serving.gateway.upstream import ReplicaBrokeError

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

STREAM_ERROR = b'data: {"error"'


class Answer:
    """An upstream answer: chunks, then the end, a break, or silence."""

    def __init__(self, chunks: Sequence[bytes], ends: str = "well") -> None:
        self.first = chunks[0] if chunks else b""
        self._rest = list(chunks[1:])
        self._ends = ends
        self.closed = 0

    async def next(self) -> bytes:
        await asyncio.sleep(0)
        if self._rest:
            return self._rest.pop(0)
        if self._ends == "silent":
            await asyncio.Event().wait()
        if self._ends == "broken":
            raise ReplicaBrokeError("reset")
        return b""

    def close(self) -> None:
        self.closed += 1


class Client:
    """The ASGI side: notes what it is sent, leaves when told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.left = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages)


async def forward(
    answer: Answer, client: Client, render: Any = openai_error
) -> tuple[Client, list[str]]:
    finished: list[str] = []
    response = StreamedAnswer(
        answer,  # type: ignore[arg-type]
        {"content-type": "text/event-stream"},
        render,
        lambda: finished.append("done"),
    )
    await response({"type": "http"}, client.receive, client.send)
    return client, finished


EVENT = st.text(max_size=20).map(lambda text: b"data: " + orjson.dumps({"t": text}) + b"\n\n")


@st.composite
def cut_streams(draw: st.DrawFn, *, ending: bytes = b"") -> tuple[bytes, list[bytes]]:
    """A stream of events and one way in which packets may cut it up."""
    whole = b"".join(draw(st.lists(EVENT, min_size=1, max_size=5))) + ending
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=8)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return whole, [part for part in parts if part]


@unhurried
@given(cut_streams())
def test_every_byte_arrives_in_order(stream: tuple[bytes, list[bytes]]) -> None:
    whole, parts = stream
    answer = Answer(parts)
    client, finished = asyncio.run(_forward_here(answer))
    assert client.body == whole
    assert client.messages[0]["status"] == 200
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}
    assert finished == ["done"]
    assert answer.closed


@unhurried
@given(cut_streams(ending=STREAM_ERROR + b': {"message": "secret"}}\n\n'))
def test_an_error_event_is_found_however_packets_cut_it(stream: tuple[bytes, list[bytes]]) -> None:
    whole, parts = stream
    client, _ = asyncio.run(_forward_here(Answer(parts)))
    assert b"secret" not in client.body
    assert client.body.startswith(whole[: whole.index(STREAM_ERROR)])
    assert b"engine_error" in client.body


async def _forward_here(answer: Answer) -> tuple[Client, list[str]]:
    return await forward(answer, Client())


@pytest.mark.parametrize(
    "answer",
    [
        Answer([b"data: one\n\n"], "broken"),
        Answer([b"data: one\n\n", STREAM_ERROR + b': {"message": "secret"}}\n\n', b"data: two"]),
        Answer([b"data: one\n\n" + STREAM_ERROR + b': {"message": "secret"}}\n\n']),
        Answer([b"data: one\n\n", b'event: error\ndata: {"type":"error","x":"secret"}\n\n']),
        Answer([b"data: one\n\n", b'event: response.failed\ndata: {"x":"secret"}\n\n']),
        Answer([b"data: one\n\n", b'data: {"half of an event": "secret']),
    ],
    ids=["cut", "error event", "within a chunk", "anthropic", "responses", "half an event"],
)
async def test_a_broken_stream_ends_with_our_error_and_none_of_the_engines_text(
    answer: Answer,
) -> None:
    client, finished = await forward(answer, Client())
    events = client.body.split(b"\n\n")
    assert events[0] == b"data: one"
    assert orjson.loads(events[1].removeprefix(b"data: "))["error"]["code"] == "engine_error"
    assert events[2:] == [b""]
    assert b"secret" not in client.body
    assert client.messages[-1] == {"type": "http.response.body", "body": b""}
    assert (finished, answer.closed > 0) == (["done"], True)


async def test_anthropics_clients_get_their_error_as_a_named_event() -> None:
    client, _ = await forward(Answer([b"event: x\n\n"], "broken"), Client(), anthropic_error)
    assert b'event: error\ndata: {"type":"error"' in client.body


async def test_a_client_that_leaves_closes_the_upstream_at_once() -> None:
    answer, client = Answer([b"data: one\n\n"], "silent"), Client()
    forwarding = asyncio.create_task(forward(answer, client))
    await asyncio.sleep(0.01)
    assert not answer.closed
    client.left.set()
    _, finished = await asyncio.wait_for(forwarding, 1)
    assert answer.closed
    assert finished == ["done"]


async def test_a_server_that_stops_closes_the_upstream_too() -> None:
    answer = Answer([b"data: one\n\n"], "silent")
    forwarding = asyncio.create_task(forward(answer, Client()))
    await asyncio.sleep(0.01)
    forwarding.cancel()
    await asyncio.gather(forwarding, return_exceptions=True)
    assert answer.closed


async def test_work_is_awaited_while_the_client_stays() -> None:
    client = Client()

    async def work() -> int:
        await asyncio.sleep(0.01)
        return 7

    assert await unless_client_leaves(client.receive, work()) == 7


async def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await unless_client_leaves(Client().receive, work())


async def test_work_is_cancelled_when_the_client_leaves() -> None:
    client, cancelled = Client(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.create_task(unless_client_leaves(client.receive, work()))
    await asyncio.sleep(0.01)
    client.left.set()
    with pytest.raises(ClientLeftError):
        await waiting
    assert cancelled.is_set()


async def test_the_rest_of_a_requests_body_is_no_reason_to_stop() -> None:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.Event().wait()

    async def work() -> str:
        await asyncio.sleep(0.01)
        return "done"

    assert await unless_client_leaves(receive, work()) == "done"
