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


# ---- against vLLM -------------------------------------------------------------------------------------

WORDS = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "no-such-type"}}}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat, stop token": ("/v1/chat/completions", {"messages": WORDS, "stop_token_ids": [10**8]}),
    "chat, schema": (
        "/v1/chat/completions",
        {
            "messages": WORDS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": SCHEMA},
            },
        },
    ),
    "completions, prompt": ("/v1/completions", {"prompt": [10**8]}),
    "messages, thinking": (
        "/v1/messages",
        {
            "messages": WORDS,
            "max_tokens": 2048,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
    ),
    "responses, schema": (
        "/v1/responses",
        {
            "input": "hi",
            "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        },
    ),
}


@pytest.mark.engine
@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
async def test_what_is_refused_unstreamed_is_refused_in_a_stream_before_anything_else(
    running: Any,
) -> None:
    for name, (path, fields) in REFUSED.items():
        body = {"model": "qwen3", "max_tokens": 4} | fields
        if path == "/v1/responses":
            body["max_output_tokens"] = body.pop("max_tokens")
        status, _ = await running.post(path, body)
        assert status == 400, name
        status, first = await running.post(path, body | {"stream": True})
        refusal = judge(status, first).refusal
        assert status == 400 or (refusal is not None and refusal.status == 400), (name, first[:300])


@pytest.mark.engine
@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
async def test_streams_of_responses_end_as_they_should(running: Any) -> None:
    body = {"model": "qwen3", "input": "hi", "max_output_tokens": 3, "stream": True}
    status, events = await running.post("/v1/responses", body)
    assert status == 200
    named = [line[7:] for line in events.decode().splitlines() if line.startswith("event: ")]
    assert named[:2] == ["response.created", "response.in_progress"]
    assert named[-1] == "response.incomplete"
