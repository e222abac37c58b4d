"""Streams pass through byte for byte; either side may go away at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.gateway.body import ClientLeftError
from serving.gateway.connection_errors import BrokenError, UnreadError
from serving.gateway.render import anthropic_error, openai_error
from serving.gateway.streaming import Ending, end_stream, stream_answer
from serving.replica_protocol import Usage

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

STREAM_ERROR = b'data: {"error"'


class Answer:
    """An upstream answer: chunks, then the end, a break, or silence."""

    def __init__(self, chunks: Sequence[bytes], ends: str = "well") -> None:
        self.first = chunks[0] if chunks else b""
        self._rest = list(chunks[1:])
        self._ends = ends
        self.paused = False
        self.closed = 0
        self.usage: Any = None
        self.receiver: Any = None

    def pipe(self, receiver: Any) -> None:
        self.receiver = receiver
        asyncio.get_running_loop().call_soon(self.go_on)

    def go_on(self) -> None:
        if self.paused or self.closed:
            return
        if self._rest:
            self.receiver.receive(self._rest.pop(0))
            asyncio.get_running_loop().call_soon(self.go_on)
        elif self._ends != "silent":
            self.receiver.end(BrokenError("reset") if self._ends == "broken" else None)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.go_on()

    def close(self) -> None:
        self.closed += 1


class Client:
    """The client's connection and ASGI's send: notes what it is sent."""

    def __init__(self, slow_after: int | None = None) -> None:
        self.starts: list[dict[str, Any]] = []
        self.pieces: list[bytes] = []
        self.complete = 0
        self.is_slow = False
        self.is_lost = False
        self.on_lost: Any = None
        self.on_writable: Any = None
        self._slow_after = slow_after

    def write(self, data: bytes) -> None:
        assert data, "an empty chunk would end the body"
        self.pieces.append(data)
        self.is_slow = len(self.pieces) == self._slow_after

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.starts.append(message)
        else:
            self.pieces.append(message.get("body", b""))
            self.complete += not message.get("more_body", False)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


async def forward(answer: Answer, client: Client, render: Any = openai_error) -> Client:
    headers = [(b"content-type", b"text/event-stream")]
    ending = await stream_answer(answer, headers, client, client.send)  # type: ignore[arg-type]
    await end_stream(ending, render, client, client.send)
    return client


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
    client = asyncio.run(_forward_here(Answer(parts)))
    assert client.body == whole
    assert client.starts[0]["status"] == 200
    assert client.complete == 1


@unhurried
@given(cut_streams(ending=STREAM_ERROR + b': {"message": "secret"}}\n\n'))
def test_an_error_event_is_found_however_packets_cut_it(stream: tuple[bytes, list[bytes]]) -> None:
    whole, parts = stream
    client = asyncio.run(_forward_here(Answer(parts)))
    assert b"secret" not in client.body
    assert client.body.startswith(whole[: whole.index(STREAM_ERROR)])
    assert b"engine_error" in client.body


async def _forward_here(answer: Answer) -> Client:
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
    client = await forward(answer, Client())
    events = client.body.split(b"\n\n")
    assert events[0] == b"data: one"
    assert orjson.loads(events[1].removeprefix(b"data: "))["error"]["code"] == "engine_error"
    assert events[2:] == [b""]
    assert b"secret" not in client.body
    assert client.complete == 1


async def test_an_error_event_closes_the_upstream_at_once() -> None:
    answer = Answer([b"data: one\n\n", STREAM_ERROR + b": 1}\n\n"], "silent")
    await asyncio.wait_for(forward(answer, Client()), 1)
    assert answer.closed


async def test_anthropics_clients_get_their_error_as_a_named_event() -> None:
    client = await forward(Answer([b"event: x\n\n"], "broken"), Client(), anthropic_error)
    assert b'event: error\ndata: {"type":"error"' in client.body


async def test_what_arrives_together_leaves_in_one_write() -> None:
    client = await forward(Answer([b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n"]), Client())
    assert client.pieces == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\n", b""]


async def test_what_a_stream_cost_is_kept_from_the_client() -> None:
    answer = Answer([b"data: 1\n\n", b"data: [DONE]\n\n", Usage(7, 3, 1).as_event()])
    client = await forward(answer, Client())
    assert client.pieces == [b"data: 1\n\n", b"data: [DONE]\n\n", b""]
    assert answer.usage == Usage(7, 3, 1)


async def test_nothing_more_is_read_while_the_client_is_slow() -> None:
    answer = Answer([b"data: %d\n\n" % n for n in range(5)])
    client = Client(slow_after=2)
    forwarding = asyncio.create_task(forward(answer, client))
    await asyncio.sleep(0.02)
    assert client.body == b"data: 0\n\ndata: 1\n\n"
    assert answer.paused
    client.on_writable()
    await asyncio.wait_for(forwarding, 1)
    assert client.body.endswith(b"data: 4\n\n")
    assert client.on_writable is None


async def test_a_cancelled_stream_lets_go_of_its_client() -> None:
    answer, client = Answer([b"data: one\n\n"], "silent"), Client()
    forwarding = asyncio.create_task(forward(answer, client))
    await asyncio.sleep(0.01)
    forwarding.cancel()
    await asyncio.gather(forwarding, return_exceptions=True)
    assert forwarding.cancelled()
    assert client.on_writable is None


async def test_an_event_without_an_end_breaks_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.streaming.MAX_EVENT_BYTES", 100)
    answer = Answer([b"data: one\n\n", *([b"x" * 30] * 9)], "silent")
    client = await asyncio.wait_for(forward(answer, Client()), 1)
    assert client.body.startswith(b"data: one\n\n")
    assert b"engine_error" in client.body
    assert b"x" * 30 not in client.body
    assert answer.closed


async def test_a_stream_whose_client_does_not_read_is_no_fault_of_the_replica() -> None:
    class Unread(Answer):
        def go_on(self) -> None:
            self.receiver.end(UnreadError("unread"))

    answer, client = Unread([b"data: one\n\n"]), Client()
    ending = await stream_answer(answer, [], client, client.send)  # type: ignore[arg-type]
    assert ending is Ending.UNREAD


async def test_the_end_of_a_stream_waits_for_its_client_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.gateway.streaming.PAUSE_TIMEOUT_S", 0.02)
    client = Client()
    client.is_slow = True

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ClientLeftError):
        await asyncio.wait_for(
            end_stream(Ending.COMPLETE, openai_error, client, never),
            1,
        )
