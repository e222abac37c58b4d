"""One request becomes two with the same prompt, or stays one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.body import encode
from serving.replicas.prefill_decode import decode_body, fits, is_long, prefill_body
from serving.routing.features import features_of

CHAT = "/v1/chat/completions"
PATHS = (CHAT, "/v1/completions", "/v1/messages", "/v1/responses")
ANSWER_ONLY = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_tokens": 900,
    "max_completion_tokens": 900,
    "max_output_tokens": 900,
    "min_tokens": 7,
    "logprobs": True,
    "top_logprobs": 3,
}
PARAMS = "kv_transfer_params"
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
names = st.sampled_from(
    ["messages", "tools", "tool_choice", "response_format", "system", "reasoning_effort", "stop"]
) | st.text(max_size=12).filter(lambda name: name not in {*ANSWER_ONLY, PARAMS})


@given(st.sampled_from(PATHS), st.dictionaries(names, anything, max_size=5), st.booleans())
def test_all_that_can_be_part_of_the_prompt_stays_as_it_is(
    path: str, about_the_prompt: dict[str, Any], with_limits: bool
) -> None:
    body = about_the_prompt | (ANSWER_ONLY if with_limits else {})
    before = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS) if _fits_json(body) else None
    asked = prefill_body(path, body)
    assert {name: asked[name] for name in about_the_prompt} == about_the_prompt
    assert not {"stream", "stream_options", "min_tokens"} & asked.keys()
    assert 1 in (asked.get("max_tokens"), asked.get("max_output_tokens"))
    assert asked[PARAMS] == {"do_remote_decode": True, "do_remote_prefill": False}
    if before is not None:
        assert orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS) == before


def _fits_json(body: dict[str, Any]) -> bool:
    try:
        orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize(
    ("path", "body", "can"),
    [
        (CHAT, {"messages": []}, True),
        (CHAT, {"messages": [], "n": 1}, True),
        # Both answers would fetch the same prompt, and it is there once.
        (CHAT, {"messages": [], "n": 2}, False),
        ("/v1/completions", {"prompt": "one"}, True),
        ("/v1/completions", {"prompt": ["one"]}, True),
        ("/v1/completions", {"prompt": ["one", "two"]}, False),
        ("/v1/completions", {"prompt": [1, 2, 3]}, True),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, False),
        ("/v1/messages", {"messages": []}, True),
        ("/v1/responses", {"input": "one"}, True),
        ("/v1/embeddings", {"input": "one"}, False),
    ],
)
def test_one_prompt_with_one_answer_can_be_handed_over(
    path: str, body: dict[str, Any], can: bool
) -> None:
    assert fits(path, body) is can


@given(
    st.lists(st.text(max_size=300), min_size=1, max_size=5), st.integers(min_value=1, max_value=600)
)
def test_a_prompt_is_long_exactly_when_the_routers_estimate_says_so(
    texts: list[str], least: int
) -> None:
    # The shortcut by the body's length never overrules the estimate.
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    estimate = features_of(CHAT, body).input_tokens
    assert is_long(len(encode(body)), least, lambda: estimate) is (estimate >= least)


def test_the_answer_says_where_the_prompt_is() -> None:
    body = {"model": "m", "stream": True}
    params = {"do_remote_prefill": True, "remote_block_ids": [[1]], "remote_host": "10.0.0.1"}
    made = decode_body(body, orjson.dumps({"choices": [], PARAMS: params}))
    assert made == body | {PARAMS: params}
    assert PARAMS not in body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"kv_transfer_params": null}',
        b'{"kv_transfer_params": []}',
        b'{"kv_transfer_params": {}}',
        b'{"kv_transfer_params": {"remote_block_ids": []}}',
    ],
)
def test_an_answer_without_a_place_hands_nothing_over(answer: bytes) -> None:
    assert decode_body({"model": "m"}, answer) is None
