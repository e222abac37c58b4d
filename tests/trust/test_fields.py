"""The allow-list: nothing off the list reaches an engine, and no error repeats what a client wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import (
    InvalidFieldError,
    MissingFieldError,
    RequestError,
    UnsupportedFieldError,
)
from serving.settings import RequestLimits
from serving.trust.checks import INT64
from serving.trust.common_fields import DROPPED, REFUSED
from serving.trust.endpoint import Endpoint
from serving.trust.fields import endpoints
from serving.trust.leftovers import OTHERS, Leftovers, is_identifier

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

LIMITS = RequestLimits(max_n=3, max_stop=2, max_output_tokens=100, max_inputs=5)
ENDPOINTS = endpoints(LIMITS)
CANARY = "canary-93de"
MESSAGES = [{"role": "user", "content": "hello"}]
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES},
    "/v1/completions": {"model": "m", "prompt": "hello"},
    "/v1/responses": {"model": "m", "input": "hello"},
    "/v1/messages": {"model": "m", "messages": MESSAGES, "max_tokens": 5},
    "/v1/embeddings": {"model": "m", "input": ["hello"]},
    "/v1/rerank": {"model": "m", "query": "q", "documents": ["d"]},
    "/v1/score": {"model": "m", "text_1": "a", "text_2": ["b"]},
    "/v1/messages/count_tokens": {"model": "m", "messages": MESSAGES},
    "/tokenize": {"model": "m", "prompt": "hello"},
    "/detokenize": {"model": "m", "tokens": [1, 2]},
}
PATHS = sorted(ENDPOINTS)


def attempt(endpoint: Endpoint, body: dict[str, Any]) -> tuple[dict[str, Any], RequestError | None]:
    """What passes, or why it is refused; anything else is raised."""
    try:
        return endpoint.check(body), None
    except RequestError as error:
        return {}, error


def test_every_endpoint_is_tested() -> None:
    assert set(GOOD) == set(ENDPOINTS)


@pytest.mark.parametrize("path", PATHS)
def test_a_usual_request_passes_unchanged(path: str) -> None:
    assert ENDPOINTS[path].check(GOOD[path]) == GOOD[path]


@pytest.mark.parametrize("path", PATHS)
def test_every_required_field_is_asked_for(path: str) -> None:
    for name in ENDPOINTS[path].required:
        for body in (
            {key: value for key, value in GOOD[path].items() if key != name},
            GOOD[path] | {name: None},
        ):
            with pytest.raises(MissingFieldError) as raised:
                ENDPOINTS[path].check(body)
            assert raised.value.param == name


UNKNOWN = (CANARY, "Model", "model ", "extra_body", "lora_request", "x" * 200, "")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_field_is_left_out_and_named_if_it_looks_like_one(path: str, name: str) -> None:
    left = Leftovers()
    assert ENDPOINTS[path].check(GOOD[path] | {name: "x"}, left) == GOOD[path]
    assert list(left.named) == [name if name in (CANARY, *UNKNOWN[1:2], *UNKNOWN[3:5]) else OTHERS]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_strict_request_with_an_unknown_field_is_refused(path: str, name: str) -> None:
    with pytest.raises(UnsupportedFieldError) as raised:
        ENDPOINTS[path].check(GOOD[path] | {name: "x"}, Leftovers(is_strict=True))
    assert raised.value.param == (name if is_identifier(name) else None)
    assert "x" * 200 not in raised.value.message


@pytest.mark.parametrize("path", PATHS)
def test_a_field_that_reaches_into_the_engine_is_refused_with_the_reason(path: str) -> None:
    endpoint = ENDPOINTS[path]
    for name in REFUSED.keys() - endpoint.fields.keys():
        with pytest.raises(UnsupportedFieldError) as raised:
            endpoint.check(GOOD[path] | {name: [CANARY]})
        assert raised.value.param == name
        assert REFUSED[name] in raised.value.message


@pytest.mark.parametrize("path", PATHS)
def test_null_is_absent_whatever_the_name(path: str) -> None:
    names = ENDPOINTS[path].rows.keys() | {CANARY, "x"}
    nothing = dict.fromkeys(names - GOOD[path].keys())
    left = Leftovers(is_strict=True)
    assert ENDPOINTS[path].check(nothing | GOOD[path], left) == GOOD[path]
    assert not left.named


@pytest.mark.parametrize("path", PATHS)
def test_a_value_that_asks_for_nothing_is_absent(path: str) -> None:
    endpoint = ENDPOINTS[path]
    for name, row in endpoint.rows.items():
        for value in row.absent:
            left = Leftovers(is_strict=True)
            assert endpoint.check(GOOD[path] | {name: value}, left) == GOOD[path]
            assert not left.named


@pytest.mark.parametrize(
    "fields",
    [
        {"background": 0},
        {"background": True},
        {"best_of": True},
        {"best_of": 2},
        {"modalities": ["text", "audio"]},
        {"priority": False},
        {"mcp_servers": [{}]},
    ],
)
def test_what_only_resembles_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFieldError):
        ENDPOINTS["/v1/chat/completions"].check(GOOD["/v1/chat/completions"] | fields)


@pytest.mark.parametrize("path", PATHS)
def test_fields_for_other_services_are_dropped_whatever_they_hold(path: str) -> None:
    extra = {name: {"anything": [CANARY]} for name in DROPPED}
    left = Leftovers(is_strict=True)
    assert ENDPOINTS[path].check(GOOD[path] | extra, left) == GOOD[path]
    assert left.named.keys() == DROPPED - {"user", "prompt_cache_key"}


# vLLM's fields that change templates, caches, transfer, priority or logging, and must never pass.
DANGEROUS = (
    "chat_template",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "kv_transfer_params",
    "vllm_xargs",
    "priority",
    "prompt_logprobs",
    "use_beam_search",
    "prompt_embeds",
    "cache_salt",
    "request_id",
    "documents",
    "logits_processors",
    "return_token_ids",
    "session_id",
    "length_penalty",
    "logprob_token_ids",
    "watermarking",
)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("name", DANGEROUS)
def test_no_generating_endpoint_lists_a_dangerous_field(path: str, name: str) -> None:
    assert name not in ENDPOINTS[path].fields


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 4}, "n"),
        ({"stop": ["a", "b", "c"]}, "stop"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"seed": INT64 + 1}, "seed"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 513}, "tools"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"one": 1}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a" * 1025}}, "structured_outputs.regex"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "(((.*)*)*)*x"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["x" * 1800] * 100}}, "structured_outputs.choice"),
        ({"structured_outputs": {"regex": "a+"}, "allowed_token_ids": [3]}, "allowed_token_ids"),
        ({"response_format": {"type": "json_object"}, "bad_words": ["a"]}, "bad_words"),
        ({"bad_words": ["a" * 65]}, "bad_words[0]"),
        ({"logit_bias": {"03": 1, "3": -1}}, "logit_bias"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        (
            {"chat_template_kwargs": {"enable_thinking": "no"}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"enable_thinking": "no"}, "enable_thinking"),
        ({"random_seed": "7"}, "random_seed"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ],
)
def test_the_limits_hold(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        ENDPOINTS["/v1/chat/completions"].check(GOOD["/v1/chat/completions"] | fields)
    assert raised.value.param == param


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/score"])
def test_the_number_of_inputs_is_limited(path: str) -> None:
    name = {"/v1/embeddings": "input", "/v1/rerank": "documents", "/v1/score": "text_2"}[path]
    ENDPOINTS[path].check(GOOD[path] | {name: ["x"] * 5})
    with pytest.raises(InvalidFieldError) as raised:
        ENDPOINTS[path].check(GOOD[path] | {name: ["x"] * 6})
    assert raised.value.param == name


def test_stream_options_need_a_stream() -> None:
    endpoint, body = ENDPOINTS["/v1/chat/completions"], GOOD["/v1/chat/completions"]
    options = {"stream_options": {"include_usage": True}}
    assert endpoint.check(body | options | {"stream": True})["stream_options"]
    for stream in (False, None):
        with pytest.raises(InvalidFieldError):
            endpoint.check(body | options | {"stream": stream})
    endpoint.check(body | {"stream_options": None})


def test_a_generating_endpoint_streams_and_counting_tokens_is_for_all_models() -> None:
    chat = {path for path, endpoint in ENDPOINTS.items() if "chat" in endpoint.tasks}
    counting = {"/v1/messages/count_tokens", "/tokenize", "/detokenize"}
    generating = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
    assert chat == generating | counting
    assert {path for path, endpoint in ENDPOINTS.items() if endpoint.streams} == generating
    for path in ("/tokenize", "/detokenize"):
        assert ENDPOINTS[path].tasks == {"chat", "guard", "embed", "rerank"}


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({}, MissingFieldError, "messages"),
        ({"prompt": "a", "messages": MESSAGES}, InvalidFieldError, "prompt"),
        ({"prompt": None, "messages": []}, InvalidFieldError, "messages"),
    ],
)
def test_tokens_are_counted_of_a_text_or_of_a_conversation(
    fields: dict[str, Any], error: type[RequestError], param: str
) -> None:
    endpoint = ENDPOINTS["/tokenize"]
    endpoint.check({"model": "m", "messages": MESSAGES})
    with pytest.raises(error) as raised:
        endpoint.check({"model": "m"} | fields)
    assert raised.value.param == param


# ---- any JSON ----------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([CANARY, f"data:image/png;base64,{CANARY}", f"http://x/{CANARY}", 10**400])
    | st.text(max_size=5)
)
# Words of the API, so that drawn values come deep into the checkers.
_WORDS = """
role content type text function tool_result tool_use image_url url name arguments user assistant tool
input_text message function_call reasoning summary source data id input output call_id tool_use_id
json_schema schema format include_usage parameters
"""
WORDS = st.sampled_from(_WORDS.split())
NAMES = WORDS | st.just(CANARY) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Endpoint, dict[str, Any]]:
    endpoint = ENDPOINTS[draw(st.sampled_from(PATHS))]
    listed = st.sampled_from(sorted(endpoint.fields))
    others = st.sampled_from(sorted(DROPPED | REFUSED.keys())) | NAMES
    changes = draw(st.dictionaries(listed, JSON, max_size=4))
    if draw(st.booleans()):
        changes |= draw(st.dictionaries(others, JSON, max_size=2))
    return endpoint, GOOD[endpoint.path] | changes


@unhurried
@given(bodies())
def test_any_body_is_checked_or_refused_by_field_and_nothing_of_it_is_repeated(
    drawn: tuple[Endpoint, dict[str, Any]],
) -> None:
    endpoint, body = drawn
    kept, error = attempt(endpoint, body)
    if error is not None:
        assert CANARY not in error.message
        assert CANARY not in (error.param or "")
        assert 400 <= error.status < 500
    else:
        assert kept.keys() <= endpoint.fields.keys()


@unhurried
@given(st.sampled_from(PATHS), st.text(min_size=1), JSON)
def test_no_name_off_the_list_is_ever_sent_on(path: str, name: str, value: Any) -> None:
    endpoint = ENDPOINTS[path]
    if name in endpoint.rows:
        return
    assert endpoint.check(GOOD[path] | {name: value}) == GOOD[path]


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    part = st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "refusal", CANARY])},
        optional={"text": JSON, "image_url": JSON, "refusal": JSON, CANARY: JSON},
    )
    return draw(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "tool", CANARY])},
            optional={
                "content": st.just(CANARY) | st.lists(part, max_size=2) | JSON,
                "tool_calls": st.lists(JSON, max_size=2),
                "name": JSON,
                CANARY: JSON,
            },
        )
    )


@unhurried
@given(st.lists(messages(), max_size=3))
def test_no_error_about_a_message_repeats_it(drawn: list[dict[str, Any]]) -> None:
    _, error = attempt(ENDPOINTS["/v1/chat/completions"], {"model": "m", "messages": drawn})
    if error is not None:
        assert CANARY not in error.message
        assert CANARY not in (error.param or "")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("depth", [50, 1000])
def test_a_deep_value_in_any_field_is_no_crash(path: str, depth: int) -> None:
    endpoint = ENDPOINTS[path]
    kinds = ("text", "tool_result", "tool_use", "message", "function_call_output", "reasoning")
    for kind in kinds:
        deep: Any = "x"
        for _ in range(depth):
            deep = [{"type": kind, "role": "user", "content": deep, "tool_use_id": "1"}]
        for name in endpoint.fields:
            attempt(endpoint, GOOD[path] | {name: deep})
