"""What vLLM refuses after its 200 comes as an error with a code, in every dialect, before anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from serving.engine.stream_errors import message_events, response_events, tell_errors
from serving.gateway.blame import judge

ERROR = 'data: {"error": {"message": "out of vocabulary", "code": 400}}\n\n'


async def given(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


def event(kind: str, status: str = "completed") -> Any:
    data = {"type": kind, "response": {"status": status}}
    return SimpleNamespace(
        type=kind,
        response=SimpleNamespace(status=status),
        model_dump=lambda **_: data,
        model_dump_json=lambda **_: orjson.dumps(data).decode(),
    )


def kinds(*items: Any) -> list[str]:
    async def collect() -> list[str]:
        return [one.type async for one in response_events(given, *items)]

    return asyncio.run(collect())


def test_an_error_among_chunks_ends_the_messages_events_as_it_is() -> None:
    async def convert(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
        async for chunk in chunks:
            yield "event: " + chunk

    async def collect(*chunks: str) -> list[str]:
        return [one async for one in message_events(convert, given(*chunks))]

    assert asyncio.run(collect("a", "b")) == ["event: a", "event: b"]
    assert asyncio.run(collect("a", ERROR, "data: [DONE]\n\n")) == ["event: a", ERROR]
    assert judge(200, ERROR.encode()).verdict == "refused"


def test_events_that_say_nothing_wait_for_one_that_does() -> None:
    whole = ("response.created", "response.in_progress", "response.output_item.added")
    assert kinds(*map(event, whole)) == list(whole)
    assert kinds(event("response.created"), ValueError("x")) == ["error"]
    assert kinds(event("response.created")) == ["response.created"]


def test_an_answer_that_was_cut_short_ends_as_incomplete() -> None:
    assert kinds(event("response.completed")) == ["response.completed"]
    assert kinds(event("response.completed", "incomplete")) == ["response.incomplete"]


def test_a_model_without_these_handlers_needs_nothing() -> None:
    tell_errors(SimpleNamespace())


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), 400), (RuntimeError("worse"), 500)]
)
def test_an_error_has_the_status_that_vllm_would_have_answered_with(
    error: Exception, status: int
) -> None:
    async def collect() -> Any:
        return [one async for one in response_events(given, error)]

    (failed,) = asyncio.run(collect())
    body = orjson.loads(failed.model_dump_json(indent=None, by_alias=True))
    assert body["error"]["code"] == status
