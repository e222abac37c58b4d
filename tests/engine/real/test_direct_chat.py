"""The short way answers what vLLM's own app answers: chunk by chunk, field by field, error by error."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import orjson
import pytest

from serving.replica_protocol import take_usage
from tests.engine.real.conftest import LOOP, Running

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope=LOOP),
]

PATH = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "qwen3",
    "messages": [{"role": "user", "content": "Bonjour: \u00e9t\u00e9, \u4f60\u597d, \U0001f680"}],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
# What differs between two answers to one request.
VARIES = re.compile(rb'"(?:id|created)":\s*(?:"chatcmpl-[^"]*"|\d+)|chatcmpl-tool-\w+')
VOLATILE = ("choices", "usage")


def vllms_app(running: Running) -> Any:
    """The app behind the short way."""
    return running.replica._door._app.app._app


async def through_vllm(running: Running, body: dict[str, Any]) -> tuple[int, bytes]:
    transport = httpx.ASGITransport(vllms_app(running), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=60) as client:
        response = await client.post(PATH, json=body)
        return response.status_code, response.content


def canonical(raw: bytes) -> Any:
    """An answer without what may differ: ids, times, and how its tokens fell into chunks.

    Two tokens may come in one chunk or in two, as busy as the machine is. So texts are joined, and chunks are
    held against chunks of their kind (`shapes`); a short stream may have none between the first and the last.
    """
    raw, _ = take_usage(VARIES.sub(b'"same":1', raw))
    if not raw.startswith(b"data: "):
        return orjson.loads(raw)
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for event in events_of(raw):
        usage = event.get("usage", usage)
        for choice in event.get("choices", ()):
            known = choices.setdefault(choice["index"], {"text": "", "logprobs": []})
            known["text"] += choice["delta"].get("content") or ""
            known["logprobs"] += (choice["logprobs"] or {}).get("content", [])
            known["finish"] = (choice["finish_reason"], choice.get("stop_reason"))
    return choices, usage, raw.split(b"\n\n")[-2:]


def shapes(raw: bytes) -> dict[str, set[str]]:
    """How chunks look, by their kind: what they have beside text and counts."""
    raw, _ = take_usage(VARIES.sub(b'"same":1', raw))
    found: dict[str, set[str]] = {}
    for event in events_of(raw):
        rest = {name: value for name, value in event.items() if name not in VOLATILE}
        for choice in event.get("choices") or ({"delta": {}},):
            keys = [*event, *choice, *choice["delta"]]
            keys = [name for name in keys if name != "content"]
            found.setdefault(kind_of(choice), set()).add(f"{rest} {keys}")
    return found


def kind_of(choice: dict[str, Any]) -> str:
    if "role" in choice["delta"]:
        return "first"
    return "last" if choice.get("finish_reason") else "between" if choice["delta"] else "usage"


def events_of(raw: bytes) -> list[dict[str, Any]]:
    lines = raw.split(b"\n\n")
    return [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


def text_of(raw: bytes) -> str:
    return "".join(
        e["choices"][0]["delta"].get("content") or "" for e in events_of(raw) if e["choices"]
    )


def plain_texts(raw: bytes) -> list[str]:
    """The texts of the chunks that have nothing but text."""
    choices = [event["choices"][0] for event in events_of(raw) if event["choices"]]
    between = [one["delta"].get("content") for one in choices if kind_of(one) == "between"]
    return [text for text in between if text]


STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([{}, {"max_tokens": 1}, {"logprobs": True, "top_logprobs": 2}], id="whole"),
        pytest.param(
            [STREAM, USAGE, USAGE | {"max_tokens": 1}, USAGE | {"max_tokens": 2}], id="streamed"
        ),
        pytest.param(
            [
                USAGE | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
                STREAM | {"n": 2, "temperature": 1, "seed": 3},
                STREAM | {"logprobs": True, "top_logprobs": 1},
                STREAM | {"stop": ["e"]},
                STREAM | {"tools": [TOOL]},
                STREAM | {"tools": [TOOL], "tool_choice": "none"},
                STREAM | {"response_format": {"type": "json_object"}},
            ],
            id="special",
        ),
        pytest.param(
            [
                {"max_tokens": 100_000},
                {"max_tokens": 100_000} | STREAM,
                {"messages": []},
                {"messages": "x"},
                {"temperature": "hot"},
                {"model": "other"},
                {"tool_choice": "required"},
                {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
                {"top_logprobs": 3},
            ],
            id="refused",
        ),
    ],
)
async def test_an_answer_is_vllms_own(running: Running, fields: list[dict[str, Any]]) -> None:
    for field in fields:
        status, raw = await running.post(PATH, BODY | field)
        expected_status, expected = await through_vllm(running, BODY | field)
        assert status == expected_status, (field, raw)
        assert canonical(raw) == canonical(expected), field
        if "stream" in field and status == 200:
            ours, vllms = shapes(raw), shapes(expected)
            for kind in ours.keys() & vllms.keys():
                assert ours[kind] == vllms[kind], (field, kind)
            assert ours.keys() ^ vllms.keys() <= {"between"}, field


@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
async def test_most_chunks_of_a_plain_stream_come_from_the_template(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.engine.chunk_template import ChunkTemplate

    filled: list[str] = []
    original = ChunkTemplate.fill

    def fill(self: ChunkTemplate, text: str) -> bytes:
        filled.append(text)
        return original(self, text)

    monkeypatch.setattr(ChunkTemplate, "fill", fill)
    _, raw = await running.post(PATH, BODY | STREAM | {"max_tokens": 256})
    # The first of them is the one that the template is cut out of.
    assert filled == plain_texts(raw)[1:]
    assert filled


@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
async def test_many_streams_at_once_keep_their_texts_apart(running: Running) -> None:
    def body(number: int) -> dict[str, Any]:
        return BODY | {"messages": [{"role": "user", "content": f"{number} " * (number + 1)}]}

    wholes = [await running.post(PATH, body(number)) for number in range(16)]
    streams = await asyncio.gather(*(running.post(PATH, body(n) | USAGE) for n in range(16)))
    for (_, whole), (_, raw) in zip(wholes, streams, strict=True):
        answer = orjson.loads(whole)
        assert text_of(raw) == answer["choices"][0]["message"]["content"]
        events, cost = take_usage(raw)
        usage = orjson.loads(events.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]
        assert cost is not None
        assert (cost.prompt_tokens, cost.output_tokens) == (usage["prompt_tokens"], 24)
        assert cost.cached_tokens == usage["prompt_tokens_details"]["cached_tokens"]
        assert usage["completion_tokens"] == answer["usage"]["completion_tokens"] == 24
        assert usage["prompt_tokens"] == answer["usage"]["prompt_tokens"]


@pytest.mark.parametrize("running", ["qwen3"], indirect=True)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_gateway_that_leaves_makes_the_engine_stop(running: Running, stream: bool) -> None:
    body = BODY | {"max_tokens": 3000, "stream": stream}
    asking = asyncio.create_task(running.post(PATH, body))
    for _ in range(200):
        await asyncio.sleep(0.02)
        if (await running.replica.record_routing_stats())["running"]:
            break
    assert (await running.replica.record_routing_stats())["running"] == 1
    asking.cancel()
    for _ in range(100):
        await asyncio.sleep(0.02)
        if not (await running.replica.record_routing_stats())["running"]:
            break
    stats = await running.replica.record_routing_stats()
    assert (stats["running"], stats["open_requests"]) == (0, 0)
    status, _ = await running.post(PATH, BODY)
    assert status == 200
