"""Errors as the official `openai` client raises them: class, status, code, param, and no canary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.lazily import lazily
from tests.stack.conftest import Stack
from tests.stack.local.official_clients import (
    EMBEDDING,
    TOOLS,
    chat,
    complete,
    embed,
    respond,
)

openai = lazily("openai")

CANARY = "palimpsest-4c1e-quagga"
LONG = CANARY * 3000
BAD_SCHEMA = {"type": "object", "properties": {"a": {"type": CANARY}}}
Call = Callable[[Any], Any]


def case(
    name: str,
    call: Call,
    code: str,
    param: str | None = None,
    status: int = 400,
    raised: str = "BadRequestError",
) -> Any:
    return pytest.param(call, raised, status, code, param, id=name)


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def chatting(**fields: Any) -> Call:
    return lambda client: chat(client, **({"messages": said(CANARY)} | fields))


def extra(**fields: Any) -> Call:
    return chatting(extra_body=fields)


def post(path: str, **body: Any) -> Call:
    return lambda client: client.post(path, body=body, cast_to=httpx.Response)


def sending(content: bytes, kind: str = "application/json") -> Call:
    return lambda client: client.post(
        "/chat/completions",
        content=content,
        options={"headers": {"content-type": kind}},
        cast_to=httpx.Response,
    )


def schema_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def tool_with(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": TOOLS[0]["function"] | fields}]


NOT_FOUND: Any = {"status": 404, "raised": "NotFoundError"}
INVALID = "invalid_value"
MISSING = "missing_required_parameter"
UNSUPPORTED = "unsupported_parameter"
TOO_LONG = "context_length_exceeded"
REFUSED = "invalid_request"

CASES = [
    case("unknown model", chatting(model=CANARY), "model_not_found", "model", **NOT_FOUND),
    case(
        "unknown model shown",
        lambda client: client.models.retrieve(CANARY),
        "model_not_found",
        "model",
        **NOT_FOUND,
    ),
    case("unknown path", post(f"/{CANARY}", model="qwen3"), "unknown_url", **NOT_FOUND),
    case(
        "a stored response",
        lambda client: client.responses.retrieve(CANARY),
        "unknown_url",
        **NOT_FOUND,
    ),
    case(
        "GET instead of POST",
        lambda client: client.get("/chat/completions", cast_to=httpx.Response),
        "method_not_allowed",
        status=405,
        raised="APIStatusError",
    ),
    case(
        "not declared as JSON",
        sending(CANARY.encode(), "text/plain"),
        "unsupported_media_type",
        status=415,
        raised="APIStatusError",
    ),
    case(
        "a body over 2 MiB",
        chatting(messages=said(CANARY * 100_000)),
        "request_too_large",
        status=413,
        raised="APIStatusError",
    ),
    case("malformed JSON", sending(b'{"model": "' + CANARY.encode()), "invalid_json"),
    case("not an object", sending(b'["' + CANARY.encode() + b'"]'), "invalid_json"),
    case("half a surrogate pair", sending(b'{"model": "\\ud800"}'), "invalid_json"),
    # Fields.
    case("no messages", post("/chat/completions", model="qwen3"), MISSING, "messages"),
    case("no model", post("/chat/completions", messages=said(CANARY)), MISSING, "model"),
    case("empty messages", chatting(messages=[]), INVALID, "messages"),
    case("messages as text", chatting(messages=CANARY), INVALID, "messages"),
    case("unknown role", chatting(messages=[{"role": CANARY}]), INVALID, "messages[0].role"),
    case(
        "a remote image",
        chatting(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": f"http://{CANARY}"}}],
                }
            ]
        ),
        INVALID,
        "messages[0].content[0].image_url.url",
    ),
    case("temperature as text", chatting(temperature=CANARY), INVALID, "temperature"),
    case("temperature too high", chatting(temperature=3), INVALID, "temperature"),
    case("negative max_tokens", chatting(max_tokens=-1), INVALID, "max_tokens"),
    case("n too large", chatting(n=1000), INVALID, "n"),
    case("too many stops", chatting(stop=["a"] * 17), INVALID, "stop"),
    case("an empty stop", chatting(stop=""), INVALID, "stop"),
    case(
        "stream options without a stream",
        chatting(stream_options={"include_usage": True}),
        INVALID,
        "stream_options",
    ),
    case(
        "unknown field of a strict request",
        chatting(extra_body={f"my {CANARY}": 1}, extra_headers={"x-comptoir-strict": "true"}),
        UNSUPPORTED,
    ),
    case("old constraint", extra(guided_json={"title": CANARY}), UNSUPPORTED, "guided_json"),
    case("refused field", extra(chat_template=CANARY), UNSUPPORTED, "chat_template"),
    case("old function calls", extra(functions=[{"name": CANARY}]), UNSUPPORTED, "functions"),
    case(
        "an earlier response",
        lambda client: respond(client, previous_response_id=CANARY),
        UNSUPPORTED,
        "previous_response_id",
    ),
    # The context.
    case("too long", chatting(messages=said(LONG)), TOO_LONG, "messages"),
    case("too long, streamed", chatting(messages=said(LONG), stream=True), TOO_LONG, "messages"),
    case("prompt too long", lambda client: complete(client, prompt=LONG), TOO_LONG, "prompt"),
    case("response too long", lambda client: respond(client, input=LONG), TOO_LONG, "input"),
    case("text too long to embed", lambda client: embed(client, LONG), TOO_LONG, "input"),
    # The wrong kind of model.
    case("embedding model chats", chatting(model=EMBEDDING), "unsupported_endpoint", "model"),
    case(
        "chat model embeds",
        lambda client: client.embeddings.create(model="qwen3", input=CANARY),
        "unsupported_endpoint",
        "model",
    ),
    # What only the engine can tell.
    case("wrong schema", chatting(response_format=schema_of(BAD_SCHEMA)), REFUSED, "response_format"),
    case(
        "wrong schema of a tool",
        chatting(tools=tool_with(parameters={"type": CANARY}, strict=True), tool_choice="required"),
        REFUSED,
        "tools",
    ),
    case(
        "unknown tool",
        chatting(
            tools=TOOLS, tool_choice={"type": "function", "function": {"name": CANARY}}
        ),
        REFUSED,
        "tool_choice",
    ),
    case("top_logprobs alone", chatting(top_logprobs=2), REFUSED, "top_logprobs"),
    case("unknown token", lambda client: complete(client, prompt=[10**8]), REFUSED, "prompt"),
    case("a size of embeddings", lambda client: embed(client, CANARY, dimensions=8), REFUSED, "dimensions"),
    case("half a score", post("/score", model=EMBEDDING, text_1=CANARY), MISSING, "text_2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "raised", "status", "code", "param"), CASES)
def test_a_wrong_request_raises_the_right_error(
    client: openai.OpenAI,
    call: Call,
    raised: str,
    status: int,
    code: str,
    param: str | None,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        call(client)
    error = caught.value
    assert type(error) is getattr(openai, raised)
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert error.type == "invalid_request_error"
    assert isinstance(error.body, dict)
    assert error.body["message"]
    assert CANARY not in error.response.text
    assert CANARY not in str(error.response.headers)


def test_a_client_may_send_any_key_where_none_is_needed(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=CANARY, max_retries=0) as client:
        assert chat(client, max_tokens=1).choices


def test_an_error_does_not_spoil_the_connection(client: openai.OpenAI) -> None:
    for _ in range(3):
        with pytest.raises(openai.BadRequestError):
            chat(client, max_tokens=-1)
        assert chat(client, max_tokens=1).choices
