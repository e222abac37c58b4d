"""What a request carries: messages, prompts, tools, formats, media."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import InvalidFieldError, MissingFieldError, RequestError
from serving.trust import content, content_anthropic

CANARY = "canary-71ab"
# No identifier, so perhaps content.
WORDS = f"my {CANARY}"
# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PIXEL = f"data:image/png;base64,{PNG}"


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": ""},
        user({"type": "text", "text": "a"}, image(PIXEL)),
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant"},
        {
            "role": "assistant",
            "reasoning_content": "so",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ],
)
def test_a_usual_message_passes(message: dict[str, Any]) -> None:
    content.chat_message(message, "messages[0]")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hello", "m"),
        ({}, "m.role"),
        ({"role": "root", "content": "a"}, "m.role"),
        ({"role": "user"}, "m.content"),
        ({"role": "user", "content": 1}, "m.content"),
        ({"role": "tool", "content": "a"}, "m.tool_call_id"),
        ({"role": "user", "content": "a", WORDS: 1}, "m"),
        ({"role": "user", "content": "a", "prefix": 1}, "m.prefix"),
        (user({"type": CANARY}), "m.content[0].type"),
        (user({"type": "text"}), "m.content[0].text"),
        (user({"type": "text", "text": "a", WORDS: 1}), "m.content[0]"),
        (user({"type": "text", "text": "a", "prefix": 1}), "m.content[0].prefix"),
        (user({"type": "input_audio", "input_audio": {}}), "m.content[0].type"),
        (user({"type": "video_url", "video_url": {"url": "x"}}), "m.content[0].type"),
        (user({"type": "file", "file": {}}), "m.content[0].type"),
        ({"role": "assistant", "audio": {"id": CANARY}}, "m.audio"),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            "m.tool_calls[0].function.name",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]},
            "m.tool_calls[0].type",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {}}]},
            "m.tool_calls[0].id",
        ),
        ({"role": "tool", "tool_call_id": "1", "content": None}, "m.content"),
        (user(*[{"type": "text", "text": "a"}] * 2049), "m.content"),
    ],
)
def test_a_wrong_message_is_refused_at_its_place(message: Any, param: str) -> None:
    with pytest.raises(RequestError) as raised:
        content.chat_message(message, "m")
    assert raised.value.param == param
    assert CANARY not in raised.value.message


@pytest.mark.parametrize(
    "url",
    [
        f"http://10.0.0.1/{CANARY}",
        f"https://example.eu/{CANARY}.png",
        f"file:/etc/{CANARY}",
        f"DATA:image/png;base64,{CANARY}",
        f"data:text/html,{CANARY}",
        f" data:image/png;base64,{CANARY}",
        "",
        1,
    ],
)
def test_only_inline_images_pass(url: Any) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        content.chat_message(user(image(url)), "m")
    assert raised.value.param == "m.content[0].image_url.url"
    assert CANARY not in raised.value.message


@pytest.mark.parametrize("value", ["", "a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_a_prompt_is_text_or_tokens(value: Any) -> None:
    content.prompt(4)(value, "prompt")


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        {},
        [],
        [True],
        [1, -1],
        [1.5],
        [[]],
        [["a"]],
        [[1, True]],
        ["a"] * 5,
        ["a", [1]],
        [[1], "a"],
        [1, "a"],
    ],
)
def test_what_is_no_prompt_is_refused(value: Any) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        content.prompt(4)(value, "prompt")
    assert str(raised.value.param).startswith("prompt")


def test_one_prompt_of_tokens_may_be_long() -> None:
    content.prompt(4)(list(range(1000)), "prompt")


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_tool_choice_is_a_word_or_a_function(choice: str) -> None:
    content.tool_choice(choice, "tool_choice")
    content.tool_choice({"type": "function", "function": {"name": choice}}, "tool_choice")
    with pytest.raises(RequestError):
        content.tool_choice({"type": "function", "function": {"name": ""}}, "tool_choice")
    with pytest.raises(RequestError):
        content.tool_choice("sometimes", "tool_choice")


def test_a_tool_is_a_function_with_a_name() -> None:
    content.chat_tools([{"type": "function", "function": {"name": "f", "parameters": {}}}], "t")
    for wrong in ({"type": "function"}, {"type": "web_search"}, {"function": {"name": "f"}}):
        with pytest.raises(RequestError):
            content.chat_tools([wrong], "t")


def test_a_response_format_is_one_of_three() -> None:
    schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
    content.response_format({"type": "text"}, "f")
    content.response_format({"type": "json_object"}, "f")
    content.response_format({"type": "json_schema", "json_schema": schema}, "f")
    content.text_format({"type": "json_schema"} | schema, "f")
    for wrong in (
        {"type": "json_schema"},
        {"type": "structural_tag"},
        {"type": "json_schema", "json_schema": {"schema": {}}},
        {},
    ):
        with pytest.raises(RequestError):
            content.response_format(wrong, "f")


def test_a_response_item_without_a_type_is_a_message() -> None:
    content.response_item({"role": "user", "content": "a"}, "input[0]")
    content.response_item({"type": "function_call_output", "call_id": "1", "output": "a"}, "i")
    with pytest.raises(MissingFieldError) as raised:
        content.response_item({"role": "user"}, "input[0]")
    assert raised.value.param == "input[0].content"
    with pytest.raises(InvalidFieldError):
        content.response_item({"type": "item_reference", "id": CANARY}, "input[0]")


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a"}]},
        {"type": "tool_result", "tool_use_id": "1"},
        {"type": "thinking", "thinking": "so", "signature": ""},
    ],
)
def test_a_usual_anthropic_block_passes(block: dict[str, Any]) -> None:
    content_anthropic.message({"role": "user", "content": [block]}, "messages[0]")


def test_an_anthropic_image_by_url_is_refused() -> None:
    with pytest.raises(RequestError) as raised:
        content_anthropic.block(
            {"type": "image", "source": {"type": "url", "url": f"http://10.0.0.1/{CANARY}"}}, "b"
        )
    assert CANARY not in raised.value.message


def test_a_tool_result_holds_no_further_result() -> None:
    inner: Any = "text"
    for _ in range(400):
        inner = [{"type": "tool_result", "tool_use_id": "1", "content": inner}]
    with pytest.raises(InvalidFieldError) as raised:
        content_anthropic.message({"role": "user", "content": inner}, "m")
    assert raised.value.param == "m.content[0].content[0].type"
