"""Small checkers for JSON values: each says as a JSON schema what it accepts, and never shows a value.

A checker tests a value without knowing where it stands. Only when something is wrong does the error
collect its path, from the inside out, so that a good body costs no paths. Large bodies are checked in
`steps`: between two of them others may run.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import (
    InvalidFieldError,
    MissingFieldError,
    RequestError,
    UnsupportedFieldError,
)

Test = Callable[[Any], None]
Steps = Callable[[Any], Iterator[None]]
Schema = Mapping[str, Any]

INT64 = 2**63 - 1
# As tuples: a union of types is made anew each time that it is written.
_NESTED, _NUMBERS = (list, dict), (int, float)
# Elements of a list that are tested in one step.
STEP_ITEMS = 1024


class WrongValueError(Exception):
    """A value failed a test; who looked inside adds where. `{path}` in the text becomes its path."""

    def __init__(self, text: str, error: type[RequestError] = InvalidFieldError) -> None:
        super().__init__(text)
        self._text = text
        self._error = error
        self._places: list[str] = []

    def within(self, place: str) -> WrongValueError:
        """The same, seen from one level further out; `place` is `.name` or `[3]`."""
        self._places.append(place)
        return self

    def at(self, root: str) -> RequestError:
        """What the client is told; `root` is the path of what was tested, empty for a whole body."""
        path = root + "".join(reversed(self._places))
        if not root:
            path = path.removeprefix(".")
        text = self._text if path else self._text.replace("'{path}'", "the body")
        return self._error(text.replace("{path}", path), param=path or None)


@dataclass(frozen=True, slots=True)
class Check:
    """One checker.

    Attributes:
        test: raises WrongValueError for a value that does not pass.
        schema: JSON Schema 2020-12 of the values that pass.
        steps: the same test in pieces, for values whose test may take long.
    """

    test: Test
    schema: Schema
    steps: Steps | None = None

    def __call__(self, value: Any, path: str) -> None:
        """Test a value that stands at `path`.

        Raises:
            InvalidFieldError, MissingFieldError, UnsupportedFieldError: naming the place.
        """
        try:
            self.test(value)
        except WrongValueError as wrong:
            raise wrong.at(path) from None

    def in_steps(self, value: Any) -> Iterator[None]:
        """Test in as many steps as it takes."""
        if self.steps is None:
            self.test(value)
        else:
            yield from self.steps(value)


def also(check: Check, test: Test, **schema: Any) -> Check:
    """The check, and then another test; `schema` is what that adds to the schema."""

    def both(value: Any) -> None:
        check.test(value)
        test(value)

    def steps(value: Any) -> Iterator[None]:
        yield from check.in_steps(value)
        test(value)

    return Check(both, {**check.schema, **schema}, steps if check.steps else None)


def _boolean(value: Any) -> None:
    if not isinstance(value, bool):
        raise WrongValueError("'{path}' must be a boolean")


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise WrongValueError("'{path}' must be a string")


def _filled(value: Any) -> None:
    _text(value)
    if not value:
        raise WrongValueError("'{path}' must not be empty")


def _object(value: Any) -> None:
    if not isinstance(value, dict):
        raise WrongValueError("'{path}' must be an object")


boolean = Check(_boolean, {"type": "boolean"})
text = Check(_text, {"type": "string"})
filled = Check(_filled, {"type": "string", "minLength": 1})


# Every JSON object; how large it may be, `sizes` says.
mapping = Check(_object, {"type": "object"})


def refused(because: str = "") -> Check:
    """A member that is known and not taken; null is all that it may be."""

    def test(value: Any) -> None:
        reason = f": {because}" if because else ""
        raise WrongValueError("'{path}' is not supported" + reason, UnsupportedFieldError)

    return Check(test, {"not": {}})


def integer(low: int = -INT64 - 1, high: int = INT64) -> Check:
    """A whole number from `low` to `high`."""

    def test(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongValueError("'{path}' must be an integer")
        _bounded(value, low, high)

    return Check(test, {"type": "integer", "minimum": low, "maximum": high})


def number(low: float, high: float, *, above: bool = False) -> Check:
    """A finite number from `low` (or only from above it) to `high`."""

    def test(value: Any) -> None:
        is_number = isinstance(value, _NUMBERS) and not isinstance(value, bool)
        # Not for integers: one beyond a float's range makes `isfinite` itself fail.
        if not is_number or (isinstance(value, float) and not math.isfinite(value)):
            raise WrongValueError("'{path}' must be a number")
        if above and value == low:
            raise WrongValueError(f"'{{path}}' must be above {low}")
        _bounded(value, low, high)

    least = "exclusiveMinimum" if above else "minimum"
    return Check(test, {"type": "number", least: low, "maximum": high})


def _bounded(value: float, low: float, high: float) -> None:
    if value < low:
        raise WrongValueError(f"'{{path}}' must be at least {low}")
    if value > high:
        raise WrongValueError(f"'{{path}}' must be at most {high}")


def one_of(*values: str) -> Check:
    """One of the listed strings."""

    def test(value: Any) -> None:
        if not isinstance(value, str) or value not in values:
            raise WrongValueError(f"'{{path}}' must be one of: {', '.join(values)}")

    return Check(test, {"type": "string", "enum": list(values)})


def many(item: Check, low: int = 0, high: int | None = None) -> Check:
    """A list of `low` to `high` items that pass `item`."""
    test_item = item.test

    def frame(value: Any) -> None:
        if not isinstance(value, list):
            raise WrongValueError("'{path}' must be a list")
        if len(value) < low:
            raise WrongValueError(
                f"'{{path}}' must have at least {low} item{'' if low == 1 else 's'}"
            )
        if high is not None and len(value) > high:
            raise WrongValueError(f"'{{path}}' must have at most {high} items")

    def test(value: Any) -> None:
        frame(value)
        for index, element in enumerate(value):
            try:
                test_item(element)
            except WrongValueError as wrong:
                wrong.within(f"[{index}]")
                raise

    def steps(value: Any) -> Iterator[None]:
        frame(value)
        for index, element in enumerate(value):
            try:
                if item.steps is not None:
                    yield from item.steps(element)
                else:
                    test_item(element)
                    if index % STEP_ITEMS == 0:
                        yield
            except WrongValueError as wrong:
                wrong.within(f"[{index}]")
                raise
            if item.steps is not None:
                yield

    schema: dict[str, Any] = {"type": "array", "items": item.schema}
    schema |= {"minItems": low} if low else {}
    schema |= {"maxItems": high} if high is not None else {}
    return Check(test, schema, steps)


def either(first: Check, second: Check, what: str) -> Check:
    """A scalar that passes `first`, or a list or an object that passes `second`; `what` says it in words."""

    def simple(value: Any) -> None:
        try:
            first.test(value)
        except WrongValueError:
            raise WrongValueError(f"'{{path}}' must be {what}") from None

    def test(value: Any) -> None:
        if isinstance(value, _NESTED):
            second.test(value)
        else:
            simple(value)

    def steps(value: Any) -> Iterator[None]:
        if isinstance(value, _NESTED):
            yield from second.in_steps(value)
        else:
            simple(value)

    schema = {"anyOf": [first.schema, second.schema]}
    return Check(test, schema, steps if second.steps else None)


def keyed(fields: Mapping[str, Check], required: Collection[str] = ()) -> Check:
    """An object with these members and no others; JSON null counts as absent."""
    tests = {name: check.test for name, check in fields.items()}

    def frame(value: Any) -> None:
        _object(value)
        for name in required:
            if value.get(name) is None:
                raise WrongValueError("'{path}' is required", MissingFieldError).within("." + name)

    def test(value: Any) -> None:
        frame(value)
        for name, member in value.items():
            test_member = tests.get(name)
            if test_member is None:
                raise unknown_member(name, fields)
            if member is not None:
                try:
                    test_member(member)
                except WrongValueError as wrong:
                    wrong.within("." + name)
                    raise

    def steps(value: Any) -> Iterator[None]:
        frame(value)
        for name, member in value.items():
            check = fields.get(name)
            if check is None:
                raise unknown_member(name, fields)
            if member is not None:
                try:
                    if check.steps is None:
                        check.test(member)
                    else:
                        yield from check.steps(member)
                except WrongValueError as wrong:
                    wrong.within("." + name)
                    raise

    has_steps = any(check.steps for check in fields.values())
    return Check(test, _object_schema(fields, required), steps if has_steps else None)


def _object_schema(fields: Mapping[str, Check], required: Collection[str]) -> Schema:
    properties = {
        name: check.schema if name in required else nullable(check.schema)
        for name, check in fields.items()
    }
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema |= {"required": list(required)} if required else {}
    return schema | {"additionalProperties": False}


def nullable(schema: Schema) -> Schema:
    """The schema, or null, which counts as absent."""
    if schema == {"not": {}}:
        return {"type": "null"}
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


# No field is so long, and comparing takes time with the length.
MAX_FIELD_NAME = 64


def unknown_member(name: str, fields: Collection[str]) -> WrongValueError:
    """What is wrong with a member that no field has the name of."""
    near = difflib.get_close_matches(name, fields, n=1) if len(name) <= MAX_FIELD_NAME else []
    # The name is the client's text: it is not repeated.
    return WrongValueError(
        "there is an unsupported field in '{path}'; supported are: "
        + ", ".join(sorted(fields))
        + (f"; did you mean {near[0]}?" if near else ""),
        UnsupportedFieldError,
    )


def shaped(shapes: Mapping[str, Check], default: str | None = None) -> Check:
    """An object whose `type` says which of several shapes it has; without one, that is `default`."""
    wrong_type = f"'{{path}}' must be one of: {', '.join(shapes)}"

    def shape_of(value: Any) -> Check:
        _object(value)
        kind = value.get("type", default)
        shape = shapes.get(kind) if isinstance(kind, str) else None
        if shape is None:
            raise WrongValueError(wrong_type).within(".type")
        return shape

    def test(value: Any) -> None:
        shape_of(value).test(value)

    def steps(value: Any) -> Iterator[None]:
        yield from shape_of(value).in_steps(value)

    schema = {"anyOf": [_typed(kind, shape, default) for kind, shape in shapes.items()]}
    has_steps = any(shape.steps for shape in shapes.values())
    return Check(test, schema, steps if has_steps else None)


def _typed(kind: str, shape: Check, default: str | None) -> Schema:
    properties = {**shape.schema["properties"], "type": {"type": "string", "const": kind}}
    required = [*shape.schema.get("required", ())]
    if kind != default and "type" not in required:
        required.insert(0, "type")
    return {**shape.schema, "properties": properties, "required": required}
