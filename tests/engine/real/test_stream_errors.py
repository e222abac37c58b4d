"""Held against vLLM: what it refuses after its 200 comes as an error with a code, before anything else."""

from __future__ import annotations

from typing import Any

import pytest

from serving.gateway.blame import judge
from tests.engine.real.conftest import LOOP

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope=LOOP),
]

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


@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
async def test_streams_of_responses_end_as_they_should(running: Any) -> None:
    body = {"model": "qwen3", "input": "hi", "max_output_tokens": 3, "stream": True}
    status, events = await running.post("/v1/responses", body)
    assert status == 200
    named = [line[7:] for line in events.decode().splitlines() if line.startswith("event: ")]
    assert named[:2] == ["response.created", "response.in_progress"]
    assert named[-1] == "response.incomplete"
