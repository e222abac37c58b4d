"""Checks of the contents of a request in Anthropic's format: blocks, messages, tools.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from serving.trust.checker import Check
from serving.trust.checks import (
    boolean,
    either,
    filled,
    integer,
    keyed,
    many,
    one_of,
    shaped,
    text,
)
from serving.trust.content import MAX_PARTS, MAX_TOOLS
from serving.trust.images import TYPES, image_data
from serving.trust.sifted import selected
from serving.trust.sizes import anything, arguments, schema

_CACHED: dict[str, Check] = {"type": text, "cache_control": anything}
_PLAIN_BLOCKS: dict[str, Check] = {
    "text": keyed(_CACHED | {"text": text, "citations": anything}, ("text",)),
    "image": keyed(
        _CACHED
        | {
            "source": keyed(
                {"type": one_of("base64"), "media_type": one_of(*TYPES), "data": image_data},
                ("type", "data"),
            )
        },
        ("source",),
    ),
}
# A result holds no further result: the depth of a request would be the client's choice.
_RESULT_CONTENT = either(
    text,
    many(
        shaped(
            _PLAIN_BLOCKS
            | {"tool_reference": keyed(_CACHED | {"tool_name": filled}, ("tool_name",))}
        ),
        high=MAX_PARTS,
    ),
    "a string or a list of text and image blocks",
)
# One content block of Anthropic's Messages API.
block = shaped(
    _PLAIN_BLOCKS
    | {
        "tool_use": keyed(
            _CACHED | {"id": text, "name": text, "input": arguments, "caller": anything},
            ("id", "name", "input"),
        ),
        "tool_result": keyed(
            _CACHED | {"tool_use_id": text, "is_error": boolean, "content": _RESULT_CONTENT},
            ("tool_use_id",),
        ),
        "thinking": keyed(_CACHED | {"thinking": text, "signature": text}, ("thinking",)),
        "redacted_thinking": keyed(_CACHED | {"data": text}, ("data",)),
    }
)
blocks = many(block, high=MAX_PARTS)
message = keyed(
    {
        # System messages in between are newer than the field `system`.
        "role": one_of("user", "assistant", "system"),
        "content": either(text, blocks, "a string or a list of blocks"),
    },
    ("role", "content"),
)
tools = selected(
    ("custom",),
    keyed(
        {
            "type": one_of("custom"),
            "name": filled,
            "description": text,
            "input_schema": schema,
            "strict": boolean,
            "cache_control": anything,
        },
        ("name", "input_schema"),
    ),
    MAX_TOOLS,
    default="custom",
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
# A format of the answer; clients of two generations write it in two places.
output_format = keyed({"type": one_of("json_schema"), "schema": schema}, ("type", "schema"))
output_config = keyed(
    {"effort": one_of("low", "medium", "high", "xhigh", "max"), "format": output_format}
)
