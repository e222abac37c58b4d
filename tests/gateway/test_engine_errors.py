"""What vLLM 0.32 says when it refuses, and what a client is told: a field it sent, and none of its text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import (
    ContextLengthError,
    EngineFailedError,
    EngineRejectedError,
    UnsupportedEndpointError,
)
from serving.gateway.engine_errors import from_engine, stream_error_at

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CANARY = "canary-77aa"
SENT = ("model", "messages", "tools", "response_format", "top_logprobs")
TOO_LONG = (
    "This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 "
    "input tokens, which exceeds this limit even without any output tokens. (parameter=input_tokens)"
)


def answer(message: str, param: str | None = None) -> bytes:
    error: dict[str, Any] = {"message": message, "type": "BadRequestError", "param": param}
    return orjson.dumps({"error": error | {"code": 400}})


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        (["model", "messages", "max_tokens"], "messages"),
        (["model", "prompt"], "prompt"),
        (["model", "input"], "input"),
        (["model", "query", "documents"], "documents"),
    ],
)
def test_a_prompt_that_is_too_long_is_blamed_on_the_field_that_has_it(
    sent: list[str], param: str
) -> None:
    error = from_engine(400, answer(TOO_LONG, "input_tokens"), sent)
    assert isinstance(error, ContextLengthError)
    assert error.param == param
    assert "8192" in error.message


@pytest.mark.parametrize(
    ("sent", "advice"),
    [
        (["messages", "max_tokens"], "shorten the prompt or lower 'max_tokens'"),
        (["messages", "max_tokens", "max_completion_tokens"], "or lower 'max_completion_tokens'"),
        (["input", "max_output_tokens"], "or lower 'max_output_tokens'"),
        (["input"], "shorten the prompt"),
    ],
)
def test_what_is_too_long_comes_with_what_can_be_lowered(sent: list[str], advice: str) -> None:
    assert from_engine(400, answer(TOO_LONG), sent).message.endswith(advice)


def test_a_completion_that_is_too_long_is_blamed_on_its_limit() -> None:
    message = "max_tokens=9000 cannot be greater than max_model_len=8192."
    error = from_engine(400, answer(message, "max_tokens"), ["messages", "max_tokens"])
    assert isinstance(error, ContextLengthError)
    assert error.param == "max_tokens"


@pytest.mark.parametrize(
    ("message", "param", "said"),
    [
        (f"Grammar error: Invalid type: {CANARY}", "response_format", "schema"),
        (f"The tool with name '{CANARY}' is not found in the tools list.", "tool_choice", "name"),
        ("When using `tool_choice`, `tools` must be set.", "tool_choice", "needs 'tools'"),
        (
            "when using `top_logprobs`, `logprobs` must be set to true.",
            "top_logprobs",
            "needs 'logprobs'",
        ),
        (f"Model '{CANARY}' does not support Matryoshka embeddings", "dimensions", "size"),
        ("min_tokens must be less than or equal to max_tokens=16, got 20.", "min_tokens", "larger"),
        ("Value error, thinking.budget_tokens must be less than max_tokens", "thinking", "less"),
        ("thinking_token_budget is set but reasoning_config is not", "thinking", "omit"),
        ("Token id 99999999 is out of vocabulary", "prompt", "vocabulary"),
        ("qwen3 is not a multimodal model", "messages", "text only"),
        ("this model needs --tool-call-parser", "tools", "tool parser"),
    ],
)
def test_a_known_refusal_names_its_field_and_the_fix(message: str, param: str, said: str) -> None:
    sent = ["model", "prompt" if param == "prompt" else "messages", param]
    error = from_engine(400, answer(message), sent)
    assert isinstance(error, EngineRejectedError)
    assert (error.status, error.param) == (400, param)
    assert said in error.message
    assert CANARY not in error.message


def test_a_schema_that_a_tool_carries_is_blamed_on_the_tools() -> None:
    error = from_engine(400, answer("Invalid grammar specification"), ["messages", "tools"])
    assert error.param == "tools"


@pytest.mark.parametrize("param", ["body", "input_tokens", CANARY, None])
def test_a_field_that_the_client_did_not_send_is_not_named(param: str | None) -> None:
    error = from_engine(400, answer(f"no idea {CANARY}", param), ["model", "messages"])
    assert error.param is None
    assert error.message == "the engine refused the request"


def test_a_field_that_the_client_sent_is_named() -> None:
    error = from_engine(400, answer("top_p must be in (0, 1]", "top_p"), ["messages", "top_p"])
    assert error.param == "top_p"
    assert "'top_p'" in error.message


@pytest.mark.parametrize("param", [CANARY, "body.messages[0]", "a b", "x\n", "UPPER", 3, ["n"], ""])
def test_what_does_not_look_like_a_field_is_never_named(param: Any) -> None:
    sent = (*SENT, CANARY, "UPPER", "a b", "x\n", "")
    error = from_engine(400, answer("bad", param), sent)
    assert error.param is None
    assert CANARY not in error.message


@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_a_failing_engine_is_a_502_whatever_it_says(status: int) -> None:
    error = from_engine(status, answer(TOO_LONG), SENT)
    assert type(error) is EngineFailedError
    assert error.status == 502


@pytest.mark.parametrize("status", [404, 501])
def test_what_the_engine_does_not_serve_is_the_requests_fault(status: int) -> None:
    assert type(from_engine(status, b"")) is UnsupportedEndpointError


ANSWERS = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.sampled_from([CANARY, "message", "tool parser", "grammar"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "param", CANARY]), inner)
    ),
    max_leaves=6,
).map(orjson.dumps)


@unhurried
@given(st.integers(400, 599), ANSWERS)
def test_any_answer_gives_an_error_without_its_text(status: int, body: bytes) -> None:
    error = from_engine(status, body, SENT)
    assert error.status >= 400
    assert CANARY not in error.message
    assert CANARY not in (error.param or "")


ERROR_EVENTS = [
    b'data: {"error": {"message": "x"}}\n\n',
    b'event: error\ndata: {"type": "error"}\n\n',
    b"event: response.failed\ndata: {}\n\n",
]


@unhurried
@given(st.text(), st.sampled_from(ERROR_EVENTS))
def test_generated_text_never_looks_like_an_error_event(text: str, event: bytes) -> None:
    content = text + event.decode() + text
    chunk = b"data: " + orjson.dumps({"choices": [{"delta": {"content": content}}]}) + b"\n\n"
    assert stream_error_at(chunk) == -1
    assert stream_error_at(chunk + event) == len(chunk)
