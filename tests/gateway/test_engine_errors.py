"""Whatever an engine says becomes one of our errors, with none of its text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import (
    ComptoirError,
    ContextLengthError,
    EngineFailedError,
    EngineRejectedError,
    UnsupportedEndpointError,
)
from serving.gateway.engine_errors import STREAM_ERROR, from_engine

CANARY = "canary-40fd"
SENT = ("model", "messages", "tools", "response_format", "top_logprobs")


def body(message: str, param: Any = None) -> bytes:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
    return orjson.dumps({"error": error})


# Messages of vLLM 0.32, abridged; numbers are kept where they are the model's.
CONTEXT = (
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length "
    "is 4096 tokens and your request has 4090 input tokens",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
)


@pytest.mark.parametrize("message", CONTEXT)
def test_a_context_overflow_names_the_models_limit(message: str) -> None:
    error = from_engine(400, body(f"{message} {CANARY}"), SENT)
    assert isinstance(error, ContextLengthError)
    assert "4096 tokens" in error.message
    assert "5000" not in error.message
    assert error.param == "messages"


@pytest.mark.parametrize(
    ("message", "cls", "param"),
    [
        (
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            EngineRejectedError,
            "tools",
        ),
        ("Failed to compile grammar: ", EngineRejectedError, "response_format"),
        ("The json_schema is not supported by xgrammar ", EngineRejectedError, "response_format"),
        ("something else ", EngineRejectedError, None),
    ],
)
def test_known_causes_are_named_and_unknown_ones_are_not_repeated(
    message: str, cls: type[ComptoirError], param: str | None
) -> None:
    error = from_engine(400, body(message + CANARY), SENT)
    assert type(error) is cls
    assert error.param == param
    assert CANARY not in error.message


def test_a_field_the_engine_names_is_named() -> None:
    error = from_engine(400, body("bad", "top_logprobs"), SENT)
    assert error.param == "top_logprobs"
    assert "top_logprobs" in error.message


@pytest.mark.parametrize("message", [CONTEXT[0], "tool parser", "grammar", "anything"])
def test_only_fields_of_the_request_are_named(message: str) -> None:
    assert from_engine(400, body(message, "input_tokens"), {"prompt"}).param in (None, "prompt")
    assert from_engine(400, body(message, "input_tokens")).param is None


@pytest.mark.parametrize("param", [CANARY, "body.messages[0]", "a b", "x\n", "UPPER", 3, ["n"], ""])
def test_what_does_not_look_like_a_field_is_not_named(param: Any) -> None:
    sent = (*SENT, CANARY, "UPPER", "a b", "x\n", "")
    error = from_engine(400, body("bad", param), sent)
    assert error.param is None
    assert CANARY not in error.message


@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_a_failing_engine_is_a_502_whatever_it_says(status: int) -> None:
    error = from_engine(status, body(CONTEXT[0]))
    assert type(error) is EngineFailedError
    assert error.status == 502


@pytest.mark.parametrize("status", [404, 501])
def test_what_the_engine_does_not_serve_is_the_requests_fault(status: int) -> None:
    assert type(from_engine(status, b"")) is UnsupportedEndpointError


@given(
    st.integers(400, 599),
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.sampled_from([CANARY, "message", "tool parser", "grammar"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "message", "param", CANARY]), inner)
        ),
        max_leaves=6,
    ).map(orjson.dumps),
)
def test_any_answer_gives_an_error_without_its_text(status: int, answer: bytes) -> None:
    error = from_engine(status, answer)
    assert error.status >= 400
    assert CANARY not in error.message
    assert CANARY not in (error.param or "")


@given(st.text())
def test_generated_text_never_looks_like_an_error_event(text: str) -> None:
    chunk = {"id": "1", "choices": [{"delta": {"content": text + STREAM_ERROR.decode() + text}}]}
    assert STREAM_ERROR not in b"data: " + orjson.dumps(chunk)
