"""What the official `anthropic` client gets from the real stack: messages, streams, tools, errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.lazily import lazily
from tests.stack.conftest import Stack
from tests.stack.local.official_clients import JSON_TOKENS, MESSAGES, PROMPT, SCHEMA, Forecast

anthropic = lazily("anthropic")

CANARY = "palimpsest-4c1e-quagga"
TOOLS: list[Any] = [
    {"name": "weather", "description": "Tells it", "input_schema": SCHEMA, "strict": True}
]
NAMED = {"type": "tool", "name": "weather"}


@pytest.fixture
def client(stack: Stack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
async def aclient(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=stack.url, api_key="none", max_retries=0, timeout=60
    ) as made:
        yield made


def usual(fields: dict[str, Any]) -> dict[str, Any]:
    # This client's signature has no temperature any more.
    return {
        "model": "qwen3",
        "messages": MESSAGES,
        "max_tokens": 16,
        "extra_body": {"temperature": 0},
    } | fields


def ask(client: anthropic.Anthropic, **fields: Any) -> Any:
    return client.messages.create(**usual(fields))


def streamed(client: anthropic.Anthropic, **fields: Any) -> tuple[str, Any]:
    """The text as it came, and the message that the client made of the events."""
    with client.messages.stream(**usual(fields)) as stream:
        return "".join(stream.text_stream), stream.get_final_message()


def test_a_message_has_everything_a_client_reads(client: anthropic.Anthropic) -> None:
    answer = ask(client)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "qwen3")
    (block,) = answer.content
    assert block.type == "text"
    assert block.text
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 16
    assert answer.usage.input_tokens > 0


def test_a_streamed_message_is_the_whole_one(client: anthropic.Anthropic) -> None:
    text, message = streamed(client, max_tokens=48)
    whole = ask(client, max_tokens=48)
    assert text == message.content[0].text == whole.content[0].text
    assert message.stop_reason == whole.stop_reason
    assert message.usage.output_tokens == whole.usage.output_tokens == 48


def test_events_come_in_anthropics_order(client: anthropic.Anthropic) -> None:
    kinds = [event.type for event in ask(client, stream=True, max_tokens=3)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


async def test_the_async_client_streams(aclient: anthropic.AsyncAnthropic) -> None:
    async with aclient.messages.stream(**usual({})) as stream:
        text = "".join([part async for part in stream.text_stream])
    assert text == (await aclient.messages.create(**usual({}))).content[0].text


@pytest.mark.parametrize(
    "system", ["Answer in French", [{"type": "text", "text": "Answer in French"}]]
)
def test_a_system_prompt_is_read(client: anthropic.Anthropic, system: Any) -> None:
    answer = ask(client, system=system)
    assert answer.usage.input_tokens > ask(client).usage.input_tokens
    assert answer.content[0].text != ask(client).content[0].text


def test_a_stop_sequence_ends_the_text_and_is_named(client: anthropic.Anthropic) -> None:
    whole = ask(client, max_tokens=48).content[0].text
    stop = whole[20:24]
    answer = ask(client, max_tokens=48, stop_sequences=[stop])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert answer.content[0].text == whole[: whole.index(stop)]


def test_earlier_turns_are_read(client: anthropic.Anthropic) -> None:
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
    ]
    assert ask(client, messages=turns).usage.input_tokens > ask(client).usage.input_tokens


@pytest.mark.parametrize("choice", [NAMED, {"type": "any"}], ids=["named", "any"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_with_input_of_its_schema(
    client: anthropic.Anthropic, choice: Any, stream: bool
) -> None:
    fields = {"tools": TOOLS, "tool_choice": choice, "max_tokens": JSON_TOKENS}
    answer = streamed(client, **fields)[1] if stream else ask(client, **fields)
    used = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use"
    assert {block.name for block in used} == {"weather"}
    for block in used:
        Forecast.model_validate(block.input)


def test_a_tool_result_is_part_of_the_conversation(client: anthropic.Anthropic) -> None:
    used = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "18 degrees"}
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result]},
    ]
    answer = ask(client, messages=turns, tools=TOOLS)
    assert answer.usage.output_tokens == 16


def test_fields_for_other_services_do_no_harm(client: anthropic.Anthropic) -> None:
    answer = ask(client, metadata={"user_id": "u"}, service_tier="auto")
    assert answer.content[0].text == ask(client).content[0].text


def test_a_bearer_token_is_accepted_in_place_of_a_key(stack: Stack) -> None:
    with anthropic.Anthropic(base_url=stack.url, auth_token="none", max_retries=0) as client:
        assert ask(client).content


def test_the_client_finds_the_requests_id(client: anthropic.Anthropic) -> None:
    assert ask(client)._request_id


Call = Callable[[Any], Any]
ERRORS: dict[str, tuple[Call, str, int, str, str]] = {
    "unknown model": (
        lambda c: ask(c, model=CANARY),
        "NotFoundError",
        404,
        "not_found_error",
        "no such model",
    ),
    "unknown path": (
        lambda c: c.messages.batches.list(),
        "NotFoundError",
        404,
        "not_found_error",
        "no such endpoint",
    ),
    "bad max_tokens": (
        lambda c: ask(c, max_tokens=0),
        "BadRequestError",
        400,
        "invalid_request_error",
        "'max_tokens'",
    ),
    "no max_tokens": (
        lambda c: c.post("/v1/messages", body={"model": CANARY, "messages": []}, cast_to=object),
        "BadRequestError",
        400,
        "invalid_request_error",
        "'max_tokens' is required",
    ),
    "unknown field": (
        lambda c: ask(
            c,
            extra_body={f"my {CANARY}": CANARY},
            extra_headers={"x-comptoir-strict": "true"},
        ),
        "BadRequestError",
        400,
        "invalid_request_error",
        "unknown field in the body",
    ),
    "a remote image": (
        lambda c: ask(
            c,
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": CANARY}}],
                }
            ],
        ),
        "BadRequestError",
        400,
        "invalid_request_error",
        "messages[0].content[0].source",
    ),
    "unknown tool": (
        lambda c: ask(c, tools=TOOLS, tool_choice={"type": "tool", "name": CANARY}),
        "BadRequestError",
        400,
        "invalid_request_error",
        "'tool_choice'",
    ),
    "unknown way to choose a tool": (
        lambda c: ask(c, tools=TOOLS, tool_choice={"type": CANARY}),
        "BadRequestError",
        400,
        "invalid_request_error",
        "'tool_choice.type'",
    ),
    "too long": (
        lambda c: ask(c, messages=[{"role": "user", "content": CANARY * 3000}]),
        "BadRequestError",
        400,
        "invalid_request_error",
        "8192 tokens",
    ),
    "a body over 2 MiB": (
        lambda c: ask(c, messages=[{"role": "user", "content": CANARY * 100_000}]),
        "APIStatusError",
        413,
        "request_too_large",
        "2097152 bytes",
    ),
    "an embedding model": (
        lambda c: ask(c, model="qwen3-embedding"),
        "BadRequestError",
        400,
        "invalid_request_error",
        "task is 'embed'",
    ),
}


@pytest.mark.parametrize(
    ("call", "raised", "status", "kind", "says"), ERRORS.values(), ids=list(ERRORS)
)
def test_a_wrong_request_raises_the_right_error(
    client: anthropic.Anthropic,
    call: Call,
    raised: str,
    status: int,
    kind: str,
    says: str,
) -> None:
    with pytest.raises(getattr(anthropic, raised)) as caught:
        call(client)
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert says in body["error"]["message"]
    assert CANARY not in caught.value.response.text
