"""What is seen of a request at a glance, and that the glance costs little and shows no text."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api import ENDPOINTS, Kind
from serving.config.routing import Effort, Language, Script
from serving.routing.features import SAMPLE_CHARACTERS, RequestFeatures, features_of
from serving.settings import RequestLimits
from serving.trust.fields import endpoints

CHAT = "/v1/chat/completions"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}


def chat(*texts: str, **fields: Any) -> RequestFeatures:
    messages = [{"role": "user", "content": text} for text in texts]
    return features_of(CHAT, {"model": "m", "messages": messages} | fields)


def test_every_endpoint_has_a_kind() -> None:
    assert set(ENDPOINTS) == set(endpoints(RequestLimits()))
    assert {row.kind for row in ENDPOINTS.values()} == set(get_args(Kind))


def test_a_path_that_no_model_answers_is_an_error() -> None:
    with pytest.raises(KeyError):
        features_of("/v1/models", {})


# ---- what the request asks for ---------------------------------------------------------------------


def test_a_plain_question() -> None:
    seen = chat("What is the capital of France?")
    assert (seen.kind, seen.turns, seen.input_characters) == ("chat", 1, 30)
    assert (seen.tools, seen.json_schema, seen.images, seen.stream) == (0, False, 0, False)
    assert seen.max_output_tokens is None
    assert seen.needs == frozenset()


def test_tools_are_counted_unless_they_may_not_be_called() -> None:
    assert chat("a", tools=[TOOL, TOOL]).tools == 2
    assert chat("a", tools=[TOOL]).needs == {"tools"}
    assert chat("a", tools=[TOOL], tool_choice="none").needs == frozenset()
    assert chat("a", tools=[TOOL], tool_choice={"type": "none"}).tools == 0
    assert chat("a", tools=[TOOL], tool_choice={"type": "auto"}).tools == 1


def test_schemas_of_tools_count_as_input_even_when_they_may_not_be_called() -> None:
    plain = chat("a")
    long = TOOL | {"function": {"name": "f", "description": "d" * 4000}}
    assert chat("a", tools=[long]).input_tokens == pytest.approx(
        plain.input_tokens + 1000, rel=0.05
    )
    assert chat("a", tools=[long], tool_choice="none").input_tokens > 1000
    # Of a hundred equal tools only some are looked at; the others are extrapolated.
    assert chat("a", tools=[long] * 100).input_tokens == pytest.approx(100_000, rel=0.1)


@pytest.mark.parametrize(
    ("path", "fields", "wanted"),
    [
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, True),
        (CHAT, {"response_format": {"type": "json_object"}}, True),
        (CHAT, {"response_format": {"type": "text"}}, False),
        ("/v1/responses", {"text": {"format": {"type": "json_schema", "name": "x"}}}, True),
        ("/v1/responses", {"text": {"format": {"type": "text"}}}, False),
        ("/v1/messages", {}, False),
    ],
)
def test_answers_in_json_are_seen(path: str, fields: dict[str, Any], wanted: bool) -> None:
    assert features_of(path, {"messages": [], "input": "a"} | fields).json_schema is wanted


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({}, None),
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "my own words"}, None),
        ({"reasoning": {"effort": "low"}}, "low"),
        ({"reasoning": {"summary": "auto"}}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "medium"),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "none"),
        ({"chat_template_kwargs": {"thinking": True}}, "medium"),
    ],
)
def test_the_effort_is_read_however_it_is_said(fields: dict[str, Any], effort: str | None) -> None:
    assert chat("a", **fields).reasoning_effort == effort


def test_the_limit_of_the_output_is_read_under_each_of_its_names() -> None:
    assert chat("a", max_tokens=5).max_output_tokens == 5
    assert chat("a", max_tokens=5, max_completion_tokens=7).max_output_tokens == 7
    assert features_of("/v1/responses", {"input": "a", "max_output_tokens": 9}).total_tokens == 13
    assert chat("a").total_tokens == chat("a").input_tokens + 1


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (CHAT, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        ("/v1/messages", {"type": "image", "source": {"type": "base64", "data": "AAAA"}}),
    ],
)
def test_images_are_counted_and_their_bytes_are_not(path: str, part: dict[str, Any]) -> None:
    content = [{"type": "text", "text": "what is it?"}, part, part]
    seen = features_of(path, {"messages": [{"role": "user", "content": content}]})
    assert (seen.images, seen.input_characters) == (2, 11)
    assert seen.needs == {"vision"}


# ---- how long it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "characters"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "ab"}]}]}, 2),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"type": "function", "function": {"name": "f", "arguments": "abcd"}}
                        ],
                    },
                    {"role": "tool", "tool_call_id": "1", "content": "abc"},
                ]
            },
            7,
        ),
        ("/v1/completions", {"prompt": "abc"}, 3),
        ("/v1/completions", {"prompt": ["abc", "de"]}, 5),
        ("/v1/responses", {"input": "abc", "instructions": "de"}, 5),
        (
            "/v1/responses",
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "abc"}]},
                    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "de"},
                    {"type": "function_call_output", "call_id": "1", "output": "f"},
                ]
            },
            6,
        ),
        (
            "/v1/messages",
            {
                "system": [{"type": "text", "text": "ab"}],
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "content": [{"type": "text", "text": "abc"}]}
                        ],
                    }
                ],
            },
            5,
        ),
        ("/v1/embeddings", {"input": ["ab", "cd"]}, 4),
        ("/v1/rerank", {"query": "ab", "documents": ["cde", "f"]}, 6),
        ("/v1/score", {"text_1": "ab", "text_2": ["c"]}, 3),
        ("/v1/score", {"queries": ["ab"], "items": ["cd"]}, 4),
    ],
)
def test_text_is_found_wherever_an_endpoint_has_it(
    path: str, body: dict[str, Any], characters: int
) -> None:
    assert features_of(path, body).input_characters == characters


def test_what_a_tool_was_called_with_counts() -> None:
    block = {"type": "tool_use", "id": "1", "name": "write", "input": {"file": "x" * 5000}}
    seen = features_of("/v1/messages", {"messages": [{"role": "assistant", "content": [block]}]})
    assert seen.input_characters == pytest.approx(5000, rel=0.01)


def test_token_ids_are_counted_as_they_are() -> None:
    assert features_of("/v1/completions", {"prompt": [1, 2, 3]}).input_tokens == 3
    assert features_of("/v1/embeddings", {"input": [[1] * 10] * 5}).input_tokens == 50
    assert features_of("/v1/embeddings", {"input": [[1] * 10] * 2000}).input_tokens == 20_000


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("word " * 800, 1000),
        ("今天天气很好" * 100, 600),
        ("Привет " * 100, 325),
        ("1234" * 100, 100),
    ],
)
def test_tokens_are_estimated_by_script(text: str, tokens: int) -> None:
    assert features_of("/v1/completions", {"prompt": text}).input_tokens == tokens


@pytest.mark.parametrize("count", [257, 1000, 20_000])
def test_a_long_conversation_is_extrapolated_from_both_ends(count: int) -> None:
    seen = chat(*["x" * 40] * count)
    assert seen.turns == count
    assert seen.input_characters == pytest.approx(40 * count, rel=0.01)
    assert seen.input_tokens == pytest.approx(14 * count, rel=0.01)


def test_many_parts_in_a_message_are_extrapolated() -> None:
    parts = [{"type": "text", "text": "x" * 10}] * 5000
    seen = features_of(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert seen.input_characters == pytest.approx(50_000, rel=0.01)


# ---- what it is written in -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("What is the capital of this country and how many people live there?", "latin", "en"),
        ("Wie viele Einwohner hat Köln und wie groß ist die Stadt?", "latin", "de"),
        ("Quelle est la capitale de la France et que peut-on y voir ?", "latin", "fr"),
        ("¿Cuál es la capital de España y cuántos habitantes tiene?", "latin", "es"),
        ("Qual è la capitale e come si chiama il sindaco della città?", "latin", "it"),
        ("Hoeveel inwoners heeft Amsterdam en wat is het weer?", "latin", "nl"),
        ("Jak się nazywa stolica Polski i co to jest?", "latin", "pl"),
        ("Qual é a capital do Brasil e o que posso ver em São Paulo?", "latin", "pt"),
        ("Bonjour", "latin", "und"),
        ("Привет, как дела?", "cyrillic", "und"),
        ("Γειά σου κόσμε", "greek", "el"),
        ("שלום עולם", "hebrew", "he"),
        ("مرحبا بالعالم", "arabic", "und"),
        ("नमस्ते दुनिया", "indic", "und"),
        ("สวัสดีชาวโลก", "thai", "th"),
        ("안녕하세요 세계", "hangul", "ko"),
        ("これは日本語のテストです", "cjk", "ja"),
        ("你好，请用 Python 写一个函数。", "cjk", "zh"),
        ("12345 67 !", "none", "und"),
        ("", "none", "und"),
    ],
)
def test_script_and_language_are_guessed(text: str, script: str, language: str) -> None:
    seen = chat(text)
    assert (seen.script, seen.language) == (script, language)


def test_half_a_character_does_no_harm() -> None:
    assert chat("\ud83d the end of the text").language == "en"


def test_the_question_at_the_end_counts_for_the_language() -> None:
    system = "1234 " * 4000
    seen = chat(system, "Wie viele Einwohner hat die Stadt und wie groß ist sie?")
    assert seen.language == "de"


def test_the_middle_of_a_long_text_is_not_read() -> None:
    ends = "the " * (SAMPLE_CHARACTERS // 4)
    assert chat(ends + "这" * 100_000 + ends).script == "latin"


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("Please explain (briefly) how tides work; it's for a talk of 20 minutes.", 0.0, 0.0),
        ("Fix:\n```python\n" + "print('hello')\n" * 20 + "```\nthanks", 0.9, 1.0),
        ("int main(void) { for (int i = 0; i < 10; i++) { f(i); } return 0; }\n" * 5, 1.0, 1.0),
        ("prose " * 50 + "```\n" + "x" * 300 + "\n```", 0.45, 0.55),
        ("", 0.0, 0.0),
    ],
)
def test_the_share_of_code(text: str, low: float, high: float) -> None:
    assert low <= chat(text).code_share <= high


def test_a_fence_that_begins_before_the_tail_is_seen_from_its_end() -> None:
    code = "x = y\n" * 6000
    assert chat("```\n" + code + "```\nwhy?").code_share > 0.95


# ---- what is promised of all of them ---------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "input", "function", "role"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)
CANARY = "zebracanary"


@unhurried
@given(st.sampled_from(sorted(ENDPOINTS)), st.lists(JSON, max_size=4), st.text(max_size=50))
def test_whatever_the_prompt_holds_features_are_numbers_and_known_words(
    path: str, items: list[Any], text: str
) -> None:
    body = {"messages": [*items, {"role": CANARY, "content": CANARY + text}], "input": items}
    seen = features_of(path, body | {"reasoning_effort": CANARY, "query": text, "documents": items})
    words = {*get_args(Kind), *get_args(Script), *get_args(Language), *get_args(Effort)}
    for value in dataclasses.asdict(seen).values():
        if isinstance(value, str):
            assert value in words | {"none", "und"}
        else:
            assert value is None or value >= 0
    assert CANARY not in json.dumps(dataclasses.asdict(seen))
    assert 0 <= seen.code_share <= 1


TWO_MIB = 2 * 2**20


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "the quick (brown) fox; " * (TWO_MIB // 23)}],
        [{"role": "user", "content": "今天天气很好，" * (TWO_MIB // 21)}],
        [{"role": "user", "content": "a"}] * (TWO_MIB // 31),
        [{"role": "user", "content": [{"type": "text", "text": "ab"}] * 60}] * 1000,
        [{"role": "user", "content": "the quick brown fox " * 400}] * 256,
    ],
    ids=["one text", "chinese", "tiny messages", "tiny parts", "many texts"],
)
def test_of_two_mebibytes_only_a_sample_is_looked_at(messages: list[dict[str, Any]]) -> None:
    body = {"model": "m", "messages": messages}
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        features_of(CHAT, body)
    finally:
        sys.setprofile(None)
    assert calls < 30_000
