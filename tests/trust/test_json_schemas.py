"""Schemas: what no answer can be held to is refused by its place; forced calls are held to theirs."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import InvalidFieldError
from serving.settings import RequestLimits
from serving.trust.fields import endpoints
from serving.trust.json_schemas import dangerous, unsupported

ENDPOINTS = endpoints(RequestLimits())
CHAT, RESPONSES = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/responses"]
MESSAGES = ENDPOINTS["/v1/messages"]
TALK = [{"role": "user", "content": "hello"}]
BASE = {"model": "m", "messages": TALK}
GOOD = {"type": "object", "properties": {"a": {"type": "string", "format": "email"}}}
BAD = {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 2}}}
FORMAT = {"type": "json_schema", "schema": BAD}
PLACE = ".properties.a.multipleOf"


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (BAD, PLACE),
        ({"type": "array", "uniqueItems": True}, ".uniqueItems"),
        ({"type": ["string", "null"], "format": "colour"}, ".format"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, ".maxLength"),
        ({"type": "object", "propertyNames": {}, "properties": {}}, ".propertyNames"),
        ({"type": "object", "patternProperties": {"a": {}, "b": {}}}, ".patternProperties"),
        ({"anyOf": [{}, {"allOf": [{}, {}]}]}, ".anyOf[1].allOf"),
        ({"properties": {"my canary": BAD}}, ".properties[...].properties.a.multipleOf"),
        (GOOD, None),
        ({"type": "string", "multipleOf": 2}, None),
        ({"allOf": [GOOD]}, None),
        ({"type": "object", "patternProperties": {"a": {}}}, None),
        ({"properties": {"type": {"type": "string"}, "format": {"type": "string"}}}, None),
        ({"type": 3, "format": []}, None),
        (True, None),
    ],
)
def test_the_first_unsupported_part_is_found(schema: Any, place: str | None) -> None:
    found = unsupported(schema)
    assert (found and found[0]) == place


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "(.*)*x"}}}, ".properties.a.pattern"),
        ({"type": "object", "patternProperties": {"(.+)+": {}}}, ".patternProperties"),
        ({"$ref": "#"}, ".$ref"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, ".$ref"),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            },
            ".$ref",
        ),
        ({"properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}}, None),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, None),
        (
            {
                "properties": {"a": {"$ref": "#/$defs/x"}, "b": {"$ref": "#/$defs/x"}},
                "$defs": {"x": {}},
            },
            None,
        ),
        ({"properties": {"pattern": {"type": "string"}}, "pattern": 3}, None),
    ],
)
def test_what_would_stop_an_engine_is_found(schema: Any, place: str | None) -> None:
    found = dangerous(schema)
    assert (found and found[0]) == place


@pytest.mark.parametrize(
    ("endpoint", "fields", "param"),
    [
        (
            CHAT,
            BASE
            | {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": BAD},
                }
            },
            "response_format.json_schema.schema",
        ),
        (CHAT, BASE | {"structured_outputs": {"json": BAD}}, "structured_outputs.json"),
        (
            RESPONSES,
            {
                "model": "m",
                "input": "a",
                "text": {"format": {"type": "json_schema", "name": "n", "schema": BAD}},
            },
            "text.format.schema",
        ),
        (
            MESSAGES,
            BASE
            | {
                "max_tokens": 9,
                "output_config": {"format": {"type": "json_schema", "schema": BAD}},
            },
            "output_config.format.schema",
        ),
        (
            CHAT,
            BASE
            | {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": BAD}},
                    {
                        "type": "function",
                        "function": {"name": "g", "parameters": BAD, "strict": True},
                    },
                ]
            },
            "tools[1].function.parameters",
        ),
        (
            MESSAGES,
            BASE | {"max_tokens": 9, "tools": [{"name": "f", "input_schema": BAD, "strict": True}]},
            "tools[0].input_schema",
        ),
    ],
)
def test_a_schema_that_no_answer_can_be_held_to_is_refused_by_its_place(
    endpoint: Any, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        endpoint.check(fields)
    assert raised.value.param == param + PLACE
    with pytest.raises(InvalidFieldError) as again:
        list(endpoint.check_in_steps(fields))
    assert again.value.param == param + PLACE


def function(name: str, schema: Any, **others: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema} | others}


@pytest.mark.parametrize(
    ("choice", "strict"),
    [
        ("required", [True, None, False, True]),
        ("any", [True, None, False, True]),
        ({"type": "function", "function": {"name": "f"}}, [True, None, False, None]),
        ("auto", [None, None, False, None]),
        ("none", [None, None, False, None]),
        (None, [None, None, False, None]),
    ],
)
def test_a_forced_call_is_held_to_its_schema_unless_the_client_or_the_schema_says_otherwise(
    choice: Any, strict: list[bool | None]
) -> None:
    tools = [
        function("f", dict(GOOD)),
        function("bad", BAD),
        function("no", dict(GOOD), strict=False),
        function("g", dict(GOOD)),
    ]
    kept = CHAT.check(BASE | {"tools": tools, "tool_choice": choice})
    assert [tool["function"].get("strict") for tool in kept["tools"]] == strict


def test_the_same_holds_in_the_other_forms() -> None:
    tool = {"type": "function", "name": "f", "parameters": dict(GOOD)}
    kept = RESPONSES.check({"model": "m", "input": "a", "tools": [tool], "tool_choice": "required"})
    assert kept["tools"][0]["strict"] is True
    tools = [{"name": "f", "input_schema": dict(GOOD)}, {"name": "g", "input_schema": dict(GOOD)}]
    choice = {"type": "tool", "name": "g"}
    kept = MESSAGES.check(BASE | {"max_tokens": 9, "tools": tools, "tool_choice": choice})
    assert [tool.get("strict") for tool in kept["tools"]] == [None, True]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": False}},
        {"type": "array", "items": [{"type": "string"}]},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}, "$defs": {}},
        {"$ref": "https://example.eu/schema"},
        {"type": "nonsense"},
        {"type": "string", "pattern": "(a"},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "pattern": r"(a)\1"},
    ],
)
def test_a_forced_call_with_a_schema_that_does_not_compile_stays_as_it_is(schema: Any) -> None:
    body = BASE | {"tools": [function("f", schema)], "tool_choice": "required"}
    assert "strict" not in CHAT.check(body)["tools"][0]["function"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}},
        {"properties": {"next": {"$ref": "#"}}},
        {"type": "string", "pattern": r"^[a-z]+\d{2}$"},
        {"type": ["string", "null"], "enum": ["a", False]},
    ],
)
def test_a_forced_call_with_an_ordinary_schema_is_held_to_it(schema: Any) -> None:
    body = BASE | {"tools": [function("f", schema)], "tool_choice": "required"}
    assert CHAT.check(body)["tools"][0]["function"]["strict"] is True
