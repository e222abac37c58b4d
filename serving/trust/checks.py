"""Small checkers for JSON values: each raises an error that names the field and never shows its value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from serving.errors import InvalidFieldError, MissingFieldError, UnsupportedFieldError

Check = Callable[[Any, str], None]


def boolean(value: Any, path: str) -> None:
    """true or false."""
    if not isinstance(value, bool):
        raise InvalidFieldError(f"'{path}' must be a boolean", param=path)


def text(value: Any, path: str) -> None:
    """Any string."""
    if not isinstance(value, str):
        raise InvalidFieldError(f"'{path}' must be a string", param=path)


def filled(value: Any, path: str) -> None:
    """A string with at least one character."""
    text(value, path)
    if not value:
        raise InvalidFieldError(f"'{path}' must not be empty", param=path)


def anything(value: Any, path: str) -> None:
    """Whatever JSON holds."""


def mapping(value: Any, path: str) -> None:
    """A JSON object, whatever its members."""
    if not isinstance(value, dict):
        raise InvalidFieldError(f"'{path}' must be an object", param=path)


# A grammar compiler's time grows faster than the schema, and it cannot be interrupted.
MAX_SCHEMA_NODES = 1000
MAX_SCHEMA_DEPTH = 32
MAX_SCHEMA_CHARACTERS = 32 * 1024
MAX_FIELD_NAME = 64


def schema(value: Any, path: str) -> None:
    """A JSON schema of bounded size; the engine judges whether it is a good one."""
    mapping(value, path)
    nodes = characters = 0
    stack = [(value, 1)]
    while stack:
        node, depth = stack.pop()
        nodes += 1
        if isinstance(node, dict):
            characters += sum(len(name) for name in node)
            stack.extend((member, depth + 1) for member in node.values())
        elif isinstance(node, list):
            stack.extend((member, depth + 1) for member in node)
        elif isinstance(node, str):
            characters += len(node)
        if nodes > MAX_SCHEMA_NODES or characters > MAX_SCHEMA_CHARACTERS:
            raise InvalidFieldError(
                f"'{path}' is too large: at most {MAX_SCHEMA_NODES} values and "
                f"{MAX_SCHEMA_CHARACTERS} characters",
                param=path,
            )
        if depth > MAX_SCHEMA_DEPTH:
            raise InvalidFieldError(
                f"'{path}' is nested too deeply: at most {MAX_SCHEMA_DEPTH} levels", param=path
            )


def integer(low: int | None = None, high: int | None = None) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidFieldError(f"'{path}' must be an integer", param=path)
        _bounded(value, path, low, high)

    return check


def number(low: float | None = None, high: float | None = None) -> Check:
    """A finite number from `low` to `high`."""

    def check(value: Any, path: str) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Not for integers: one beyond a float's range makes `isfinite` itself fail.
        if not is_number or (isinstance(value, float) and not math.isfinite(value)):
            raise InvalidFieldError(f"'{path}' must be a number", param=path)
        _bounded(value, path, low, high)

    return check


def one_of(*values: str) -> Check:
    """One of the listed strings."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, str) or value not in values:
            raise InvalidFieldError(f"'{path}' must be one of: {', '.join(values)}", param=path)

    return check


def many(item: Check, low: int = 0, high: int | None = None) -> Check:
    """A list of `low` to `high` items that pass `item`."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise InvalidFieldError(f"'{path}' must be a list", param=path)
        if len(value) < low:
            raise InvalidFieldError(f"'{path}' must have at least {low} item(s)", param=path)
        if high is not None and len(value) > high:
            raise InvalidFieldError(f"'{path}' must have at most {high} items", param=path)
        for index, element in enumerate(value):
            item(element, f"{path}[{index}]")

    return check


def either(first: Check, second: Check, what: str) -> Check:
    """A value that passes one of two checks; `what` says it in words."""

    def check(value: Any, path: str) -> None:
        matching = second if isinstance(value, list | dict) else first
        try:
            matching(value, path)
        except InvalidFieldError as error:
            if error.param == path and not isinstance(value, list | dict):
                raise InvalidFieldError(f"'{path}' must be {what}", param=path) from None
            raise

    return check


def keyed(
    fields: Mapping[str, Check], required: Collection[str] = (), *, extra: bool = False
) -> Check:
    """An object with these members; others are refused unless `extra`."""

    def check(value: Any, path: str) -> None:
        mapping(value, path)
        members(value, fields, required, prefix=f"{path}.", extra=extra)

    return check


def members(
    value: Mapping[str, Any],
    fields: Mapping[str, Check],
    required: Collection[str] = (),
    *,
    prefix: str = "",
    extra: bool = False,
) -> None:
    """Check an object's members in place; JSON null counts as absent."""
    for name in required:
        if value.get(name) is None:
            raise MissingFieldError(f"'{prefix}{name}' is required", param=f"{prefix}{name}")
    for name, member in value.items():
        check = fields.get(name)
        if check is None:
            if not extra:
                # The name is the client's text: it is not repeated.
                where = f"in '{prefix.rstrip('.')}'" if prefix else "in the body"
                raise UnsupportedFieldError(
                    f"there is an unsupported field {where}; supported are: "
                    + ", ".join(sorted(fields))
                    + _meant(name, fields),
                    param=prefix.rstrip(".") or None,
                )
        elif member is not None:
            check(member, prefix + name)


def _meant(name: str, fields: Collection[str]) -> str:
    # No field is so long, and comparing takes time with the length.
    near = difflib.get_close_matches(name, fields, n=1) if len(name) <= MAX_FIELD_NAME else []
    return f"; did you mean {near[0]}?" if near else ""


def _bounded(value: float, path: str, low: float | None, high: float | None) -> None:
    if low is not None and value < low:
        raise InvalidFieldError(f"'{path}' must be at least {low}", param=path)
    if high is not None and value > high:
        raise InvalidFieldError(f"'{path}' must be at most {high}", param=path)
