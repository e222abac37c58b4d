"""Checkers of free-form JSON: any members, but of a bounded size.

Schemas, arguments of tools and what clients echo have no fixed members. What an engine does with them
takes time that grows with their size, and so does looking at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import core_schema

from serving.trust.checker import Check, WrongValueError
from serving.trust.checks import mapping
from serving.trust.leftovers import Leftovers
from serving.trust.measure import fits

# A grammar compiler's time grows faster than the schema, and it cannot be interrupted.
MAX_SCHEMA_VALUES = 1000
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_CHARACTERS = 32 * 1024
# Of the arguments of a tool call that a client sends back, and of what it echoes for other services.
MAX_INPUT_VALUES, MAX_ECHO_VALUES = 10_000, 1000
MAX_INPUT_DEPTH = 64


def sized(value: Any, values: int, depth: int, characters: int | None = None) -> None:
    """Refuse a JSON value that holds more than so many values, levels or characters.

    Raises:
        WrongValueError: it does; after looking at no more than `values` of them.
    """
    seen = read = 0
    stack = [(value, 1)]
    while stack:
        node, level = stack.pop()
        seen += 1
        if isinstance(node, str):
            read += len(node)
        elif isinstance(node, (dict, list)):
            # Before they are put on the stack: there may be a million.
            if seen + len(stack) + len(node) > values:
                seen = values + 1
            elif isinstance(node, dict):
                read += sum(map(len, node))
                stack.extend((member, level + 1) for member in node.values())
            else:
                stack.extend((member, level + 1) for member in node)
        if seen > values or (characters is not None and read > characters):
            raise WrongValueError(
                f"'{{path}}' is too large: at most {values} values"
                + ("" if characters is None else f" and {characters} characters")
            )
        if level > depth:
            raise WrongValueError(f"'{{path}}' is nested too deeply: at most {depth} levels")


def _free(
    values: int, depth: int, characters: int | None = None, *, is_object: bool, what: str = ""
) -> Check:
    """A checker of such a value: one step for each, for a list may have many of them."""

    def test(value: Any) -> Any:
        if is_object:
            mapping.test(value)
        if not fits(value, values, depth, characters):
            # Slower, and says which bound it is.
            sized(value, values, depth, characters)
        return value

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        test(value)
        yield

    bounds = f"{what}At most {values} values and {depth} levels"
    bounds += f", {characters} characters." if characters else "."
    kind = {"type": "object"} if is_object else {}
    core = core_schema.no_info_plain_validator_function(test)
    return Check({**kind, "description": bounds}, core, walk=walk)


schema = _free(
    MAX_SCHEMA_VALUES,
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_CHARACTERS,
    is_object=True,
    what="A JSON schema. ",
)
arguments = _free(MAX_INPUT_VALUES, MAX_INPUT_DEPTH, is_object=True)
anything = _free(MAX_ECHO_VALUES, MAX_INPUT_DEPTH, is_object=False)
