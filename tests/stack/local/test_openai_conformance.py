"""What the official `openai` client, sync and async, gets from the real stack: every endpoint and field."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.lazily import lazily
from tests.stack.conftest import Stack
from tests.stack.local.official_clients import (
    CHAT_MODELS,
    EMBEDDING,
    FUNCTION,
    JSON_SCHEMA,
    JSON_TOKENS,
    MESSAGES,
    NAMED,
    PROMPT,
    TOOLS,
    Forecast,
    chat,
    complete,
    embed,
    joined,
    respond,
    text_of,
)

openai = lazily("openai")


# ---- chat completions ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_chat_completion_has_everything_a_client_reads(client: openai.OpenAI, model: str) -> None:
    answer = chat(client, model=model)
    (choice,) = answer.choices
    assert (answer.object, answer.model) == ("chat.completion", model)
    assert (choice.index, choice.message.role) == (0, "assistant")
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 16
    assert abs(answer.created - time.time()) < 60


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_a_stream_joins_to_the_whole_answer(client: openai.OpenAI, model: str) -> None:
    chunks = list(chat(client, model=model, stream=True, max_tokens=48))
    assert joined(chunks) == text_of(chat(client, model=model, max_tokens=48))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    ends = [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason]
    assert ends == ["length"]


async def test_the_async_client_gets_the_same_text(
    aclient: openai.AsyncOpenAI, client: openai.OpenAI
) -> None:
    stream = await aclient.chat.completions.create(
        model="qwen3", messages=MESSAGES, max_tokens=16, temperature=0, stream=True
    )
    text = joined([chunk async for chunk in stream])
    assert text == await asyncio.to_thread(lambda: text_of(chat(client)))


def test_a_stream_ends_with_done_and_has_the_headers_of_an_event_stream(stack: Stack) -> None:
    body = {"model": "qwen3", "messages": MESSAGES, "max_tokens": 2, "stream": True}
    answer = httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_the_same_seed_gives_the_same_text_and_another_seed_another(client: openai.OpenAI) -> None:
    texts = [text_of(chat(client, temperature=1, seed=seed, max_tokens=32)) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_temperature_0_is_deterministic(client: openai.OpenAI) -> None:
    assert len({text_of(chat(client, max_tokens=48)) for _ in range(3)}) == 1


@pytest.mark.parametrize("as_list", [False, True])
def test_stop_ends_the_text_before_the_sequence(client: openai.OpenAI, as_list: bool) -> None:
    whole = text_of(chat(client, max_tokens=48))
    stop = whole[20:24]
    answer = chat(client, max_tokens=48, stop=["\x00never", stop] if as_list else stop)
    assert answer.choices[0].finish_reason == "stop"
    assert text_of(answer) == whole[: whole.index(stop)]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_completion_has_at_most_the_tokens_asked_for(client: openai.OpenAI, field: str) -> None:
    answer = client.chat.completions.create(model="qwen3", messages=MESSAGES, **{field: 5})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


def test_n_gives_several_answers(client: openai.OpenAI) -> None:
    answer = chat(client, n=2, temperature=1, seed=3, extra_body={"ignore_eos": True})
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.usage.completion_tokens == 32


def test_n_streams_several_answers_at_once(client: openai.OpenAI) -> None:
    whole = chat(client, n=2, temperature=1, seed=3)
    texts = {0: "", 1: ""}
    for chunk in chat(client, n=2, temperature=1, seed=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {choice.index: choice.message.content for choice in whole.choices}


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_come_for_every_token_with_the_best_first(
    client: openai.OpenAI, stream: bool
) -> None:
    answer = chat(client, logprobs=True, top_logprobs=3, max_tokens=8, stream=stream)
    choices = [c.choices[0] for c in answer] if stream else answer.choices
    tokens = [token for c in choices if c.logprobs for token in c.logprobs.content]
    assert len(tokens) == 8
    for token in tokens:
        best = [top.logprob for top in token.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        # Temperature 0 takes the most likely token.
        assert token.logprob == best[0] <= 0
    assert "".join(token.token for token in tokens) == text_of(chat(client, max_tokens=8))


def test_usage_of_a_stream_is_that_of_the_whole_answer_in_a_last_chunk(
    client: openai.OpenAI,
) -> None:
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    whole = chat(client).usage
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert getattr(chunks[-1].usage, name) == getattr(whole, name)


def test_a_stream_has_no_usage_unless_asked(client: openai.OpenAI) -> None:
    chunks = list(chat(client, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_are_read(client: openai.OpenAI, role: str) -> None:
    told = [{"role": role, "content": "Answer in French"}, *MESSAGES]
    answer = chat(client, messages=told)
    assert answer.usage.prompt_tokens > chat(client).usage.prompt_tokens
    assert text_of(answer) != text_of(chat(client))


@pytest.mark.parametrize(
    "text", ["Grüße aus Köln", "你好，世界", "👩🏽‍🚀 🌍", "a\u0000b\u2028c", "مرحبا"]
)
def test_text_of_any_script_is_taken_and_streamed_whole(client: openai.OpenAI, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    whole = text_of(chat(client, messages=messages, max_tokens=48))
    assert joined(chat(client, messages=messages, max_tokens=48, stream=True)) == whole


def test_a_long_conversation_is_read_to_its_end(client: openai.OpenAI) -> None:
    turns = [
        {"role": role, "content": f"turn {number}"}
        for number in range(150)
        for role in ("user", "assistant")
    ]
    questions = [{"role": "user", "content": text} for text in ("one 2 3 please", "four 5 6")]
    answers = [chat(client, messages=[*turns, question]) for question in questions]
    assert answers[0].usage.prompt_tokens > 2000
    assert text_of(answers[0]) != text_of(answers[1])


def test_content_may_come_in_parts(client: openai.OpenAI) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    assert text_of(chat(client, messages=parts)) == text_of(chat(client))


def test_fields_for_other_services_do_no_harm(client: openai.OpenAI) -> None:
    answer = chat(client, user="u", metadata={"a": "b"}, store=True, service_tier="auto")
    assert text_of(answer) == text_of(chat(client))


def test_every_answer_has_a_request_id_of_its_own(client: openai.OpenAI) -> None:
    ids = {chat(client, max_tokens=1)._request_id for _ in range(2)}
    assert None not in ids
    assert len(ids) == 2


# ---- tools and formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
def test_a_tool_call_has_arguments_of_its_schema(client: openai.OpenAI, choice: Any) -> None:
    answer = chat(client, tools=TOOLS, tool_choice=choice, max_tokens=JSON_TOKENS)
    call = answer.choices[0].message.tool_calls[0]
    assert (call.type, bool(call.id)) == ("function", True)
    assert call.function.name in (["weather"] if choice is NAMED else ["weather", "climate"])
    Forecast.model_validate_json(call.function.arguments)
    # openai.OpenAI says `stop` for a named function.
    assert answer.choices[0].finish_reason == ("stop" if choice is NAMED else "tool_calls")


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
def test_a_streamed_tool_call_joins_to_the_whole_one(client: openai.OpenAI, choice: Any) -> None:
    fields = {"tools": TOOLS, "tool_choice": choice, "max_tokens": JSON_TOKENS}
    whole = chat(client, **fields).choices[0].message.tool_calls
    calls: dict[int, dict[str, str]] = {}
    for chunk in chat(client, **fields, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or ():
            call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += delta.id or ""
            call["name"] += delta.function.name or ""
            call["arguments"] += delta.function.arguments or ""
    assert [call["name"] for call in calls.values()] == [call.function.name for call in whole]
    for streamed, call in zip(calls.values(), whole, strict=True):
        assert streamed["id"]
        assert json.loads(streamed["arguments"]) == json.loads(call.function.arguments)


def test_a_tool_result_is_part_of_the_conversation(client: openai.OpenAI) -> None:
    first = chat(client, tools=TOOLS, tool_choice=NAMED, max_tokens=JSON_TOKENS)
    message = first.choices[0].message
    asked = [*MESSAGES, message.model_dump(exclude_none=True)]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18 degrees"}
    answer = chat(client, messages=[*asked, result], tools=TOOLS, tool_choice="none")
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > first.usage.prompt_tokens


def test_tools_may_be_left_to_the_model(client: openai.OpenAI) -> None:
    answer = chat(client, tools=TOOLS)
    assert answer.usage.prompt_tokens > chat(client).usage.prompt_tokens


def test_a_json_schema_holds(client: openai.OpenAI) -> None:
    answer = chat(client, response_format=JSON_SCHEMA, max_tokens=JSON_TOKENS)
    assert answer.choices[0].finish_reason == "stop"
    Forecast.model_validate_json(text_of(answer))


def test_a_pydantic_class_may_be_the_format(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="qwen3",
        messages=MESSAGES,
        max_tokens=JSON_TOKENS,
        temperature=0,
        response_format=Forecast,
    )
    assert isinstance(answer.choices[0].message.parsed, Forecast)


def test_json_object_gives_a_json_object(client: openai.OpenAI) -> None:
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=JSON_TOKENS)
    assert isinstance(json.loads(text_of(answer)), dict)


# ---- completions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [("Once", 1), (["Once", "Twice"], 2), ([5, 6, 7], 1), ([[5, 6], [7, 8]], 2)],
    ids=["text", "texts", "tokens", "token lists"],
)
def test_a_completion_takes_every_form_of_prompt(
    client: openai.OpenAI, prompt: Any, answers: int
) -> None:
    answer = complete(client, prompt=prompt)
    assert answer.object == "text_completion"
    assert [choice.index for choice in answer.choices] == list(range(answers))
    assert all(choice.text for choice in answer.choices)
    assert answer.usage.completion_tokens == 16 * answers


def test_a_streamed_completion_joins_to_the_whole(client: openai.OpenAI) -> None:
    text = "".join(chunk.choices[0].text for chunk in complete(client, stream=True))
    assert text == complete(client).choices[0].text


def test_a_completion_has_logprobs(client: openai.OpenAI) -> None:
    found = complete(client, logprobs=2, max_tokens=4).choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) == 4
    assert all(2 <= len(top) <= 3 for top in found.top_logprobs)


# ---- responses -------------------------------------------------------------------------------------


def test_a_response_has_text_and_usage(client: openai.OpenAI) -> None:
    answer = respond(client)
    assert answer.output_text
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 16
    assert answer.usage.total_tokens == answer.usage.input_tokens + 16


def test_a_streamed_response_joins_to_the_whole(client: openai.OpenAI) -> None:
    events = list(respond(client, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == respond(client).output_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_calls_functions(client: openai.OpenAI, stream: bool) -> None:
    tool = FUNCTION | {"type": "function"}
    fields: Any = {"tools": [tool], "tool_choice": "required", "max_output_tokens": JSON_TOKENS}
    answer = respond(client, **fields, stream=stream)
    if stream:
        answer = list(answer)[-1].response
    (call,) = (item for item in answer.output if item.type == "function_call")
    assert call.name == "weather"
    Forecast.model_validate_json(call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    turn = [{"role": "user", "content": PROMPT}, call.model_dump(exclude_none=True), result]
    assert respond(client, input=turn, tools=[tool], tool_choice="none").output_text


def test_a_response_may_be_a_pydantic_class(client: openai.OpenAI) -> None:
    answer = client.responses.parse(
        model="qwen3", input=PROMPT, max_output_tokens=JSON_TOKENS, text_format=Forecast
    )
    assert isinstance(answer.output_parsed, Forecast)


def test_earlier_turns_of_a_response_are_read(client: openai.OpenAI) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes"}]
    last = {"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}
    answer = respond(client, input=[*turns, last], instructions="Be brief")
    assert answer.usage.input_tokens > respond(client).usage.input_tokens


# ---- embeddings, rerank, score, models -------------------------------------------------------------


def test_embeddings_are_the_same_as_floats_and_as_base64(client: openai.OpenAI) -> None:
    floats = embed(client, "the sea", encoding_format="float").data[0].embedding
    # The client asks for base64 when it is not told, and decodes it.
    assert embed(client, "the sea").data[0].embedding == pytest.approx(floats, abs=1e-6)
    raw = client.embeddings.with_raw_response.create(
        model=EMBEDDING, input="the sea", encoding_format="base64"
    )
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)
    assert sum(value * value for value in floats) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("single", "several"),
    [("the sea", ["a bill", "the sea"]), ([5, 6, 7], [[8, 9], [5, 6, 7]])],
    ids=["texts", "tokens"],
)
def test_embeddings_of_a_list_come_in_its_order(
    client: openai.OpenAI, single: Any, several: list[Any]
) -> None:
    answer = embed(client, several)
    assert [item.index for item in answer.data] == [0, 1]
    alone = embed(client, single).data[0].embedding
    assert answer.data[1].embedding == pytest.approx(alone, abs=1e-3)
    assert answer.data[0].embedding != pytest.approx(alone, abs=1e-2)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_rerank_sorts_documents_by_relevance(client: openai.OpenAI) -> None:
    body = {"model": EMBEDDING, "query": "sea", "documents": ["a bill", "the sea", "sea"]}
    results: Any = client.post("/rerank", body=body, cast_to=httpx.Response).json()["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert results[0]["document"]["text"] == "sea"
    assert sorted(result["index"] for result in results) == [0, 1, 2]


def test_rerank_returns_the_best_n(client: openai.OpenAI) -> None:
    body = {"model": EMBEDDING, "query": "sea", "documents": ["a", "b", "c"], "top_n": 2}
    answer: Any = client.post("/rerank", body=body, cast_to=httpx.Response).json()
    assert len(answer["results"]) == 2


def test_score_compares_one_text_with_several(client: openai.OpenAI) -> None:
    body = {"model": EMBEDDING, "text_1": "sea", "text_2": ["a bill", "sea"]}
    data: Any = client.post("/score", body=body, cast_to=httpx.Response).json()["data"]
    assert [item["index"] for item in data] == [0, 1]
    assert data[1]["score"] == pytest.approx(1, abs=1e-3)


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {*CHAT_MODELS, EMBEDDING} <= set(listed)
    assert client.models.retrieve("qwen3") == listed["qwen3"]
    assert listed["qwen3"].object == "model"
