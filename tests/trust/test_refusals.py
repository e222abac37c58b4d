"""What the gateway refuses itself because an engine would only say that it cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from serving.api import SCORE_PAIRS
from serving.errors import InvalidFieldError, MissingFieldError, RequestError
from serving.settings import RequestLimits
from serving.trust.fields import endpoints

ENDPOINTS = endpoints(RequestLimits())
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("pair", SCORE_PAIRS)
def test_a_score_takes_every_pair_of_names(pair: tuple[str, str]) -> None:
    body = {"model": "m", pair[0]: "a", pair[1]: ["b", "c"]}
    assert ENDPOINTS["/v1/score"].check(body) == body


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "text_1"),
        ({"text_1": "a"}, "text_2"),
        ({"text_1": "a", "text_2": None}, "text_2"),
        ({"documents": ["a"]}, "queries"),
        ({"data_2": "a"}, "data_1"),
        ({"text_1": "a", "documents": ["b"]}, "text_2"),
    ],
)
def test_half_a_pair_names_the_other_half(given: dict[str, Any], missing: str) -> None:
    with pytest.raises(MissingFieldError) as raised:
        ENDPOINTS["/v1/score"].check({"model": "m"} | given)
    assert raised.value.param == missing
    assert "'queries' and 'documents'" in raised.value.message


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"stop": ""}, "stop"),
        ("/v1/chat/completions", {"stop": ["a", ""]}, "stop[1]"),
        ("/v1/messages", {"max_tokens": 5, "stop_sequences": [""]}, "stop_sequences[0]"),
        ("/v1/messages", {"max_tokens": 5, "tool_choice": {"type": "x"}}, "tool_choice.type"),
        ("/v1/messages", {"max_tokens": 5, "tool_choice": {"x": 1}}, "tool_choice.type"),
        ("/v1/messages", {"max_tokens": 5, "thinking": {"type": "x"}}, "thinking.type"),
        (
            "/v1/messages",
            {"max_tokens": 5, "thinking": {"type": "enabled", "budget_tokens": 10}},
            "thinking.budget_tokens",
        ),
    ],
)
def test_a_value_no_engine_takes_is_refused_by_name(
    path: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as raised:
        ENDPOINTS[path].check({"model": "m", "messages": MESSAGES} | fields)
    assert raised.value.param == param


def test_an_empty_stop_is_said_to_be_empty() -> None:
    with pytest.raises(InvalidFieldError, match="not empty"):
        ENDPOINTS["/v1/completions"].check({"model": "m", "prompt": "x", "stop": ""})


CHAT = {"model": "m", "messages": MESSAGES}


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-6])
def test_several_choices_of_the_likeliest_text_are_refused_by_name(temperature: float) -> None:
    chat = ENDPOINTS["/v1/chat/completions"]
    with pytest.raises(InvalidFieldError) as raised:
        chat.check(CHAT | {"n": 4, "temperature": temperature})
    assert raised.value.param == "n"
    chat.check(CHAT | {"n": 1, "temperature": temperature})
    chat.check(CHAT | {"n": 4, "temperature": 0.5})
    chat.check(CHAT | {"n": 4, "temperature": None})


def test_encrypted_reasoning_is_refused_by_name() -> None:
    item = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    responses = ENDPOINTS["/v1/responses"]
    with pytest.raises(RequestError) as raised:
        responses.check({"model": "m", "input": [item]})
    assert raised.value.param == "input[0].encrypted_content"
    assert "leave it out" in raised.value.message
    responses.check({"model": "m", "input": [item | {"encrypted_content": None}]})


def test_texts_and_token_ids_do_not_mix() -> None:
    for value, param in (
        (["a", [1]], "input[1]"),
        ([1, "a"], "input[1]"),
        ([[1], "a"], "input[1]"),
    ):
        with pytest.raises(InvalidFieldError) as raised:
            ENDPOINTS["/v1/embeddings"].check({"model": "m", "input": value})
        assert raised.value.param == param


def test_messages_and_items_are_bounded_in_number() -> None:
    for path, name, one in (
        ("/v1/chat/completions", "messages", MESSAGES[0]),
        ("/v1/messages", "messages", MESSAGES[0]),
        ("/v1/responses", "input", MESSAGES[0]),
    ):
        endpoint = endpoints(RequestLimits(max_messages=3))[path]
        body = {"model": "m", name: [one] * 3} | (
            {"max_tokens": 5} if path == "/v1/messages" else {}
        )
        endpoint.check(body)
        with pytest.raises(InvalidFieldError) as raised:
            endpoint.check(body | {name: [one] * 4})
        assert (raised.value.param, "at most 3" in raised.value.message) == (name, True)


def test_a_top_p_of_zero_is_refused_as_documented() -> None:
    with pytest.raises(InvalidFieldError, match="above 0"):
        ENDPOINTS["/v1/chat/completions"].check(CHAT | {"top_p": 0})
