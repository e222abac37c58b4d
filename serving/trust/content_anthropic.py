"""Checks of what a request in Anthropic's form carries: blocks, messages, tools.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Any

from serving.trust.checks import (
    Check,
    anything,
    boolean,
    either,
    filled,
    integer,
    keyed,
    many,
    mapping,
    one_of,
    schema,
    text,
)
from serving.trust.content import shaped


def _image(value: Any, path: str) -> None:
    keyed({"type": one_of("base64"), "media_type": text, "data": text}, ("type", "data"))(
        value, path
    )


_CACHED: dict[str, Check] = {"type": text, "cache_control": anything}
_PLAIN_BLOCKS: dict[str, Check] = {
    "text": keyed(_CACHED | {"text": text, "citations": anything}, ("text",)),
    "image": keyed(_CACHED | {"source": _image}, ("source",)),
}


def _plain_block(value: Any, path: str) -> None:
    mapping(value, path)
    shaped(value.get("type"), _PLAIN_BLOCKS, value, path)


# A result holds no further result: the depth of a request would be the client's choice.
_RESULT_CONTENT = either(text, many(_plain_block), "a string or a list of text and image blocks")
_BLOCKS: dict[str, Check] = _PLAIN_BLOCKS | {
    "tool_use": keyed(
        _CACHED | {"id": text, "name": text, "input": mapping, "caller": anything},
        ("id", "name", "input"),
    ),
    "tool_result": keyed(
        _CACHED | {"tool_use_id": text, "is_error": boolean, "content": _RESULT_CONTENT},
        ("tool_use_id",),
    ),
    "thinking": keyed(_CACHED | {"thinking": text, "signature": text}, ("thinking",)),
    "redacted_thinking": keyed(_CACHED | {"data": text}, ("data",)),
}


def block(value: Any, path: str) -> None:
    """One content block of Anthropic's Messages API."""
    mapping(value, path)
    shaped(value.get("type"), _BLOCKS, value, path)


_CONTENT = either(text, many(block), "a string or a list of blocks")
message = keyed({"role": one_of("user", "assistant"), "content": _CONTENT}, ("role", "content"))
tool = keyed(
    {
        "type": one_of("custom"),
        "name": filled,
        "description": text,
        "input_schema": schema,
        "strict": boolean,
        "cache_control": anything,
    },
    ("name", "input_schema"),
)
tool_choice = keyed(
    {
        "type": one_of("auto", "any", "tool", "none"),
        "name": filled,
        "disable_parallel_tool_use": boolean,
    },
    ("type",),
)
thinking = keyed(
    {
        "type": one_of("enabled", "disabled", "adaptive"),
        "budget_tokens": integer(1024),
        "display": one_of("summarized", "omitted", "updates"),
    },
    ("type",),
)
