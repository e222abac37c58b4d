"""Checks of a request's contents: messages, prompts, tools, response formats.

Media are refused unless they are inline: an engine that fetches a client's URL can be aimed at the
inside of a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import core_schema

from serving.trust.checker import STEP_ITEMS, Check, WrongValueError
from serving.trust.checks import (
    boolean,
    either,
    filled,
    integer,
    keyed,
    many,
    one_of,
    refused,
    shaped,
    text,
)
from serving.trust.images import image_url
from serving.trust.leftovers import Leftovers
from serving.trust.sifted import selected
from serving.trust.sizes import anything, schema

# Of one message.
MAX_PARTS = 2048
MAX_TOOLS = MAX_CALLS = 512
MAX_TOKEN_ID = 2**31 - 1

_FUNCTION_CALL = keyed({"name": text, "arguments": text}, ("name",))
_TOOL_CALL = keyed(
    {"id": text, "type": one_of("function"), "function": _FUNCTION_CALL, "index": integer(0)},
    ("id", "type", "function"),
)
_SCHEMA = keyed(
    {"name": filled, "schema": schema, "strict": boolean, "description": text}, ("name",)
)


# ---- prompts -----------------------------------------------------------------------------------------


def _all_ids(ids: list[Any], start: int = 0) -> None:
    # The set of types is made in C: a list of ids may have a million of them.
    if {*map(type, ids)} <= {int} and (not ids or (min(ids) >= 0 and max(ids) <= MAX_TOKEN_ID)):
        return
    index = next(
        index
        for index, item in enumerate(ids)
        if type(item) is not int or not 0 <= item <= MAX_TOKEN_ID
    )
    raise WrongValueError(
        f"'{{path}}' must be a token id: a whole number from 0 to {MAX_TOKEN_ID}"
    ).within(f"[{start + index}]")


def _ids_in_steps(value: Any, left: Leftovers) -> Iterator[None]:
    if not isinstance(value, list):
        raise WrongValueError("'{path}' must be a list of token ids")
    if not value:
        raise WrongValueError("'{path}' must have at least 1 item")
    for start in range(0, len(value), STEP_ITEMS):
        _all_ids(value[start : start + STEP_ITEMS], start)
        yield


_id = integer(0, MAX_TOKEN_ID)
token_ids = Check(
    {"type": "array", "items": _id.schema, "minItems": 1},
    core_schema.list_schema(_id.core, min_length=1, fail_fast=True, strict=True),
    walk=_ids_in_steps,
)


def prompt(max_inputs: int) -> Check:
    """A string, strings, token ids, or lists of token ids; the first item says which."""
    texts = many(text, low=1, high=max_inputs)
    lists = many(token_ids, low=1, high=max_inputs)

    def kind_of(value: Any) -> Check:
        if isinstance(value, str):
            return text
        if not isinstance(value, list):
            raise WrongValueError(
                "'{path}' must be a string, a list of strings or a list of token ids"
            )
        if not value:
            raise WrongValueError("'{path}' must not be empty")
        first = value[0]
        return lists if isinstance(first, list) else texts if isinstance(first, str) else token_ids

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        yield from kind_of(value).in_steps(value, left)

    kinds = (text, texts, token_ids, lists)
    core = core_schema.union_schema([kind.core for kind in kinds], mode="left_to_right")
    return Check({"anyOf": [kind.schema for kind in kinds]}, core, walk=walk)


# ---- chat completions --------------------------------------------------------------------------------

_PART = shaped(
    {
        "text": keyed({"type": text, "text": text, "cache_control": anything}, ("text",)),
        "refusal": keyed({"type": text, "refusal": text}, ("refusal",)),
        "image_url": keyed(
            {
                "type": text,
                "image_url": keyed(
                    {"url": image_url, "detail": one_of("auto", "low", "high")}, ("url",)
                ),
            },
            ("image_url",),
        ),
    }
)
_CONTENT = either(text, many(_PART, high=MAX_PARTS), "a string or a list of parts")
_ROLES = ("system", "developer", "user", "assistant", "tool")
_MESSAGE_FIELDS: dict[str, Check] = {
    "role": one_of(*_ROLES),
    "content": _CONTENT,
    "name": text,
    "tool_calls": many(_TOOL_CALL, high=MAX_CALLS),
    "tool_call_id": text,
    "reasoning": text,
    "reasoning_content": text,
    "refusal": text,
    "annotations": anything,
    "audio": refused(),
    "function_call": refused(),
}
# What a role asks for, beside itself.
_NEEDED = {"assistant": (), "tool": ("content", "tool_call_id")}
_ANY_MESSAGE = keyed(_MESSAGE_FIELDS, ("role",))


def _walk_message(value: Any, left: Leftovers) -> Iterator[None]:
    yield from _ANY_MESSAGE.in_steps(value, left)
    role = value["role"]
    for name in _NEEDED.get(role, ("content",)):
        if value.get(name) is None:
            raise WrongValueError(f"'{{path}}' is required for role '{role}'").within("." + name)


def _message() -> Check:
    by_need: dict[tuple[str, ...], list[str]] = {}
    for role in _ROLES:
        by_need.setdefault(_NEEDED.get(role, ("content",)), []).append(role)
    kinds = [
        (roles, keyed(_MESSAGE_FIELDS | {"role": one_of(*roles)}, ("role", *needed)))
        for needed, roles in by_need.items()
    ]
    core = core_schema.tagged_union_schema(
        {role: kind.core for roles, kind in kinds for role in roles}, "role", strict=True
    )
    return Check({"anyOf": [kind.schema for _, kind in kinds]}, core, walk=_walk_message)


# One message of a chat completion.
chat_message = _message()

_FUNCTION = keyed(
    {"name": filled, "description": text, "parameters": schema, "strict": boolean}, ("name",)
)
chat_tools = selected(
    ("function",),
    keyed({"type": one_of("function"), "function": _FUNCTION}, ("type", "function")),
    MAX_TOOLS,
)
response_tools = selected(
    ("function",),
    keyed(
        {
            "type": one_of("function"),
            "name": filled,
            "description": text,
            "parameters": schema,
            "strict": boolean,
        },
        ("type", "name"),
    ),
    MAX_TOOLS,
)
tool_choice = either(
    one_of("none", "auto", "required"),
    keyed(
        {
            "type": one_of("function"),
            "function": keyed({"name": filled}, ("name",)),
            "name": filled,
        },
        ("type",),
    ),
    "'none', 'auto', 'required' or an object naming a function",
)

# `response_format` of a chat completion.
response_format = shaped(
    {
        "text": keyed({"type": text}),
        "json_object": keyed({"type": text}),
        "json_schema": keyed({"type": text, "json_schema": _SCHEMA}, ("json_schema",)),
    }
)

# ---- responses ---------------------------------------------------------------------------------------

# `text.format` of a response.
text_format = shaped(
    {
        "text": keyed({"type": text}),
        "json_object": keyed({"type": text}),
        "json_schema": keyed(
            {
                "type": text,
                "name": filled,
                "schema": schema,
                "strict": boolean,
                "description": text,
            },
            ("name", "schema"),
        ),
    }
)

_PLAIN = keyed(
    {"type": text, "text": text, "annotations": anything, "logprobs": anything}, ("text",)
)
_RESPONSE_PART = shaped(
    {
        **dict.fromkeys(
            ("input_text", "output_text", "text", "reasoning_text", "summary_text"), _PLAIN
        ),
        "input_image": keyed(
            {"type": text, "image_url": image_url, "detail": one_of("auto", "low", "high")},
            ("image_url",),
        ),
        "refusal": keyed({"type": text, "refusal": text}, ("refusal",)),
    }
)
_RESPONSE_PARTS = many(_RESPONSE_PART, high=MAX_PARTS)
_RESPONSE_CONTENT = either(text, _RESPONSE_PARTS, "a string or a list of parts")
_ITEM: dict[str, Check] = {"type": text, "id": text, "status": text}

# One item of a response's `input`; a message may leave out its type.
response_item = shaped(
    {
        "message": keyed(
            _ITEM
            | {
                "phase": anything,
                "role": one_of("system", "developer", "user", "assistant"),
                "content": _RESPONSE_CONTENT,
            },
            ("role", "content"),
        ),
        "function_call": keyed(
            _ITEM | {"call_id": text, "name": text, "arguments": text},
            ("call_id", "name", "arguments"),
        ),
        "function_call_output": keyed(
            _ITEM | {"call_id": text, "output": _RESPONSE_CONTENT}, ("call_id", "output")
        ),
        "reasoning": keyed(
            _ITEM
            | {
                "summary": _RESPONSE_PARTS,
                "content": _RESPONSE_PARTS,
                "encrypted_content": refused("reasoning is not encrypted here; leave it out"),
            }
        ),
    },
    default="message",
)
