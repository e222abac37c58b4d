"""Streams that wait: the deadline they come with, signs of life, one end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from serving.config.admission import AdmissionConfig
from serving.errors import InvalidFieldError
from serving.gateway.busy import BusyError
from serving.gateway.render import anthropic_error, openai_error
from serving.gateway.waiting_stream import WaitingStream, deadline_of


class Client:
    """The client's side of a stream."""

    on_lost: Callable[[], Any] | None = None
    on_writable: Callable[[], Any] | None = None
    is_lost = is_slow = False

    def __init__(self) -> None:
        self.got: list[Any] = []

    def write(self, data: bytes) -> None:
        self.got.append(data)

    async def send(self, message: Any) -> None:
        self.got.append(message)


async def test_a_waiting_stream_begins_once_and_then_gets_comments() -> None:
    client = Client()
    stream = WaitingStream(lambda: {"content-type": "text/event-stream"}, client, client.send)
    assert not stream.has_begun
    await stream(10.0)
    await stream(20.0)
    assert stream.has_begun
    head = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/event-stream")],
    }
    assert client.got == [head, b": waiting\n\n", b": waiting\n\n"]


@pytest.mark.parametrize("dialect", [openai_error, anthropic_error])
async def test_a_stream_that_has_begun_ends_with_an_error_event(dialect: Any) -> None:
    client = Client()
    stream = WaitingStream(dict, client, client.send)
    await stream(10.0)
    error = BusyError("expired", 7.0)
    await stream.fail(error, dialect)
    last = client.got[-1]
    assert last["type"] == "http.response.body"
    assert not last.get("more_body")
    *name, data = last["body"].rstrip(b"\n").split(b"\n")
    assert name == ([b"event: error"] if dialect is anthropic_error else [])
    assert orjson.loads(data.removeprefix(b"data: ")) == dialect(error)


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 60.0), ("1", 0.001), ("2500", 2.5), (" 600000 ", 600.0)]
)
def test_a_deadline_is_read(value: str | None, seconds: float) -> None:
    assert deadline_of(value, AdmissionConfig(), 5.0).at_s == 5.0 + seconds


@pytest.mark.parametrize(
    "value",
    ["", "0", "-1", "1.5", "1e3", "+5", "0x10", "1_000", "soon", "600001", "9" * 5000, "١٢", "²"],
)
def test_a_wrong_deadline_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        deadline_of(value, AdmissionConfig(), 5.0)
    assert raised.value.param == "x-comptoir-deadline-ms"
    assert raised.value.message == (
        "the header x-comptoir-deadline-ms must be a whole number of milliseconds from 1 to 600000"
    )


async def test_a_client_that_reads_nothing_gets_no_more_signs_of_life() -> None:
    class Slow:
        is_slow = True

        def write(self, data: bytes) -> None:
            raise AssertionError("written")

    async def send(message: object) -> None:
        raise AssertionError("sent, which would wait for the client")

    waiting = WaitingStream(dict, Slow(), send)  # type: ignore[arg-type]
    await waiting(1.0)
    assert not waiting.has_begun
