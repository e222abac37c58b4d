"""Free-form JSON is bounded: by values, levels and characters, whatever its form."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import InvalidFieldError
from serving.trust.leftovers import Leftovers
from serving.trust.sizes import (
    MAX_ECHO_VALUES,
    MAX_INPUT_DEPTH,
    MAX_SCHEMA_CHARACTERS,
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_VALUES,
    anything,
    arguments,
    schema,
)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"enum": list(range(MAX_SCHEMA_VALUES - 2))},
        nested(MAX_SCHEMA_DEPTH),
        {"description": "x" * (MAX_SCHEMA_CHARACTERS - 11)},
    ],
)
def test_a_schema_may_be_as_large_as_that(value: dict[str, Any]) -> None:
    schema(value, "s")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"enum": list(range(MAX_SCHEMA_VALUES - 1))}, "too large"),
        ({str(number): 1 for number in range(100_000)}, "too large"),
        (nested(MAX_SCHEMA_DEPTH + 1), "nested too deeply"),
        ({"description": "x" * MAX_SCHEMA_CHARACTERS}, "too large"),
        ({"x" * MAX_SCHEMA_CHARACTERS * 2: 1}, "too large"),
        ([], "an object"),
    ],
)
def test_a_schema_beyond_a_bound_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message):
        schema(value, "s")


@pytest.mark.parametrize(
    "value", [[0] * MAX_ECHO_VALUES, {"a": [0] * MAX_ECHO_VALUES}, nested(MAX_INPUT_DEPTH + 1)]
)
def test_what_clients_echo_is_bounded_too(value: Any) -> None:
    with pytest.raises(InvalidFieldError):
        anything(value, "e")


def test_arguments_of_tools_may_hold_whole_files() -> None:
    arguments({"text": "x" * 1_000_000, "rows": list(range(9_000))}, "a")
    with pytest.raises(InvalidFieldError):
        arguments({"rows": list(range(10_000))}, "a")


def test_a_list_of_schemas_is_tested_one_a_step() -> None:
    from serving.trust.checks import many

    assert sum(1 for _ in many(schema).in_steps([{}] * 7, Leftovers())) >= 7
