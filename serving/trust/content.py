"""Checks of what a request carries: messages, prompts, tools, response formats.

Media are refused unless they are inline: an engine that fetches a client's URL can be aimed at the
inside of a network.
"""

from __future__ import annotations

from typing import Any

from serving.errors import InvalidFieldError, UnsupportedFieldError
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
    members,
    one_of,
    schema,
    text,
)

_FUNCTION_CALL = keyed({"name": text, "arguments": text}, ("name",))
_TOOL_CALL = keyed(
    {"id": text, "type": one_of("function"), "function": _FUNCTION_CALL, "index": integer(0)},
    ("function",),
)
_SCHEMA = keyed(
    {"name": filled, "schema": schema, "strict": boolean, "description": text}, ("name",)
)


def prompt(max_inputs: int) -> Check:
    """A string, strings, token ids, or lists of token ids."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, str):
            return
        if not isinstance(value, list):
            raise InvalidFieldError(
                f"'{path}' must be a string, a list of strings or a list of token ids", param=path
            )
        if not value:
            raise InvalidFieldError(f"'{path}' must not be empty", param=path)
        if all(type(item) is int and item >= 0 for item in value):
            return
        if len(value) > max_inputs:
            raise InvalidFieldError(f"'{path}' must have at most {max_inputs} items", param=path)
        item = either(text, many(integer(0), low=1), "a string or a list of token ids")
        for index, element in enumerate(value):
            item(element, f"{path}[{index}]")

    return check


def _inline_image(value: Any, path: str) -> None:
    keyed({"url": text, "detail": one_of("auto", "low", "high")}, ("url",))(value, path)
    if not value["url"].startswith("data:image/"):
        raise InvalidFieldError(
            f"'{path}.url' must be a data:image/... URL: remote media are not fetched",
            param=f"{path}.url",
        )


def _part(value: Any, path: str) -> None:
    mapping(value, path)
    kind = value.get("type")
    shapes: dict[str, Check] = {
        "text": keyed({"type": text, "text": text, "cache_control": anything}, ("text",)),
        "refusal": keyed({"type": text, "refusal": text}, ("refusal",)),
        "image_url": keyed({"type": text, "image_url": _inline_image}, ("image_url",)),
    }
    shaped(kind, shapes, value, path)


def shaped(kind: Any, shapes: dict[str, Check], value: Any, path: str) -> None:
    """Check a value whose `type` says which of several shapes it has."""
    shape = shapes.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise InvalidFieldError(
            f"'{path}.type' must be one of: {', '.join(shapes)}", param=f"{path}.type"
        )
    shape(value, path)


_CONTENT = either(text, many(_part), "a string or a list of parts")


def _refused(value: Any, path: str) -> None:
    raise UnsupportedFieldError(f"'{path}' is not supported", param=path)


_MESSAGE_FIELDS: dict[str, Check] = {
    "role": one_of("system", "developer", "user", "assistant", "tool"),
    "content": _CONTENT,
    "name": text,
    "tool_calls": many(_TOOL_CALL, high=128),
    "tool_call_id": text,
    "reasoning": text,
    "reasoning_content": text,
    "refusal": text,
    "annotations": anything,
    "audio": _refused,
    "function_call": _refused,
}


def chat_message(value: Any, path: str) -> None:
    """One message of a chat completion."""
    mapping(value, path)
    members(value, _MESSAGE_FIELDS, ("role",), prefix=f"{path}.")
    role = value["role"]
    if role in ("user", "system", "developer") and value.get("content") is None:
        raise InvalidFieldError(
            f"'{path}.content' is required for role '{role}'", param=f"{path}.content"
        )
    if role == "tool" and value.get("tool_call_id") is None:
        raise InvalidFieldError(
            f"'{path}.tool_call_id' is required for role 'tool'", param=f"{path}.tool_call_id"
        )


_FUNCTION = keyed(
    {"name": filled, "description": text, "parameters": schema, "strict": boolean}, ("name",)
)
chat_tool = keyed({"type": one_of("function"), "function": _FUNCTION}, ("type", "function"))
response_tool = keyed(
    {
        "type": one_of("function"),
        "name": filled,
        "description": text,
        "parameters": schema,
        "strict": boolean,
    },
    ("type", "name"),
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


def response_format(value: Any, path: str) -> None:
    """`response_format` of a chat completion: text, json_object or json_schema."""
    mapping(value, path)
    shaped(
        value.get("type"),
        {
            "text": keyed({"type": text}),
            "json_object": keyed({"type": text}),
            "json_schema": keyed({"type": text, "json_schema": _SCHEMA}, ("json_schema",)),
        },
        value,
        path,
    )


def text_format(value: Any, path: str) -> None:
    """`text.format` of a response: text, json_object or json_schema."""
    mapping(value, path)
    shape = {
        "type": text,
        "name": filled,
        "schema": schema,
        "strict": boolean,
        "description": text,
    }
    shaped(
        value.get("type"),
        {
            "text": keyed({"type": text}),
            "json_object": keyed({"type": text}),
            "json_schema": keyed(shape, ("name", "schema")),
        },
        value,
        path,
    )


def _response_part(value: Any, path: str) -> None:
    mapping(value, path)
    plain = keyed(
        {"type": text, "text": text, "annotations": anything, "logprobs": anything}, ("text",)
    )
    shapes: dict[str, Check] = {
        "input_text": plain,
        "output_text": plain,
        "text": plain,
        "reasoning_text": plain,
        "summary_text": plain,
        "refusal": keyed({"type": text, "refusal": text}, ("refusal",)),
    }
    shaped(value.get("type"), shapes, value, path)


_RESPONSE_CONTENT = either(text, many(_response_part), "a string or a list of parts")
_RESPONSE_ITEMS: dict[str, Check] = {
    "message": keyed(
        {
            "type": text,
            "id": text,
            "status": text,
            "phase": anything,
            "role": one_of("system", "developer", "user", "assistant"),
            "content": _RESPONSE_CONTENT,
        },
        ("role", "content"),
    ),
    "function_call": keyed(
        {
            "type": text,
            "id": text,
            "status": text,
            "call_id": text,
            "name": text,
            "arguments": text,
        },
        ("call_id", "name", "arguments"),
    ),
    "function_call_output": keyed(
        {
            "type": text,
            "id": text,
            "status": text,
            "call_id": text,
            "output": _RESPONSE_CONTENT,
        },
        ("call_id", "output"),
    ),
    "reasoning": keyed(
        {
            "type": text,
            "id": text,
            "status": text,
            "summary": many(_response_part),
            "content": many(_response_part),
            "encrypted_content": text,
        }
    ),
}


def response_item(value: Any, path: str) -> None:
    """One item of a response's `input`; a message may leave out its type."""
    mapping(value, path)
    shaped(value.get("type", "message"), _RESPONSE_ITEMS, value, path)
