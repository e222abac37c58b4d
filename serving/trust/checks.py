"""Small checkers for JSON values: scalars, and what lists and objects are made of."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic_core import CoreSchema, core_schema

from serving.errors import MissingFieldError, UnsupportedFieldError
from serving.trust.checker import STEP_ITEMS, Check, Schema, Test, WrongValueError
from serving.trust.leftovers import MAX_MEMBERS, Leftovers, is_identifier

INT64 = 2**63 - 1
# As tuples: a union of types is made anew each time that it is written.
_NESTED, _NUMBERS = (list, dict), (int, float)


# ---- scalars -------------------------------------------------------------------------------------------


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


boolean = Check({"type": "boolean"}, core_schema.bool_schema(strict=True), _boolean)
text = Check({"type": "string"}, core_schema.str_schema(strict=True), _text)
filled = Check(
    {"type": "string", "minLength": 1}, core_schema.str_schema(strict=True, min_length=1), _filled
)


def custom(test: Test, schema: Schema) -> Check:
    """Any value that passes the test, which takes a bounded time."""

    def passed(value: Any) -> Any:
        test(value)
        return value

    return Check(schema, core_schema.no_info_plain_validator_function(passed), test)


# Every JSON object; how large it may be, `sizes` says.
mapping = custom(_object, {"type": "object"})


def refused(because: str = "") -> Check:
    """A member that is known and refused; only null passes."""

    def test(value: Any) -> None:
        reason = f": {because}" if because else ""
        raise WrongValueError("'{path}' is not supported" + reason, UnsupportedFieldError)

    return custom(test, {"not": {}})


def integer(low: int = -INT64 - 1, high: int = INT64) -> Check:
    """A whole number from `low` to `high`."""

    def test(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongValueError("'{path}' must be an integer")
        _bounded(value, low, high)

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Check(schema, core_schema.int_schema(ge=low, le=high, strict=True), test)


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

    core = core_schema.float_schema(
        allow_inf_nan=False,
        ge=None if above else low,
        gt=low if above else None,
        le=high,
        strict=True,
    )
    least = "exclusiveMinimum" if above else "minimum"
    return Check({"type": "number", least: low, "maximum": high}, core, test)


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

    schema = {"type": "string", "enum": list(values)}
    return Check(schema, core_schema.literal_schema(list(values)), test)


# ---- lists and objects ---------------------------------------------------------------------------------


def many(item: Check, low: int = 0, high: int | None = None) -> Check:
    """A list of `low` to `high` items that pass `item`."""

    def frame(value: Any) -> None:
        if not isinstance(value, list):
            raise WrongValueError("'{path}' must be a list")
        if len(value) < low:
            raise WrongValueError(
                f"'{{path}}' must have at least {low} item{'' if low == 1 else 's'}"
            )
        if high is not None and len(value) > high:
            raise WrongValueError(f"'{{path}}' must have at most {high} items")

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        frame(value)
        look, passes = item.look, item.passes_at_once
        left.enter("[]")
        for index, element in enumerate(value):
            try:
                if look is not None:
                    look(element)
                elif not passes(element):
                    yield from item.walk(element, left)
                if look is None or index % STEP_ITEMS == 0:
                    yield
            except WrongValueError as wrong:
                wrong.within(f"[{index}]")
                raise
        left.leave()

    core = core_schema.list_schema(
        item.core, min_length=low, max_length=high, fail_fast=True, strict=True
    )
    schema: dict[str, Any] = {"type": "array", "items": item.schema}
    schema |= {"minItems": low} if low else {}
    schema |= {"maxItems": high} if high is not None else {}
    return Check(schema, core, walk=walk)


def either(scalar: Check, nested: Check, what: str) -> Check:
    """What passes `scalar`, or a list or an object that passes `nested`; `what` says it in words."""

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        if isinstance(value, _NESTED):
            yield from nested.in_steps(value, left)
            return
        try:
            scalar.test(value)
        except WrongValueError:
            raise WrongValueError(f"'{{path}}' must be {what}") from None

    core = core_schema.union_schema([scalar.core, nested.core], mode="left_to_right")
    return Check({"anyOf": [scalar.schema, nested.schema]}, core, walk=walk)


def keyed(fields: Mapping[str, Check], required: Collection[str] = ()) -> Check:
    """An object with these members; all others are left out, and JSON null counts as absent."""

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        _object(value)
        for name in required:
            if value.get(name) is None:
                raise WrongValueError("'{path}' is required", MissingFieldError).within("." + name)
        leave_out(value, fields, left)
        for name, member in value.items():
            check = fields[name]
            try:
                if check.look is not None:
                    check.look(member)
                else:
                    if not check.passes_at_once(member):
                        left.enter("." + name)
                        yield from check.walk(member, left)
                        left.leave()
                    yield
            except WrongValueError as wrong:
                wrong.within("." + name)
                raise

    members = {
        name: core_schema.typed_dict_field(check.core, required=name in required)
        for name, check in fields.items()
    }
    core = core_schema.typed_dict_schema(members, extra_behavior="forbid", strict=True)
    return Check(_object_schema(fields, required), core, walk=walk)


def leave_out(value: dict[str, Any], fields: Collection[str], left: Leftovers) -> None:
    """Take members out that are null or unknown.

    Raises:
        WrongValueError: one is unknown and nothing may be left out.
    """
    if len(value) > MAX_MEMBERS:
        raise WrongValueError(f"'{{path}}' may have at most {MAX_MEMBERS} members")
    for name in [name for name, member in value.items() if member is None or name not in fields]:
        if value[name] is not None:
            if left.is_strict:
                raise unknown_member(name, fields)
            left.note(name)
        member = value.pop(name)
        if isinstance(member, _NESTED):
            left.taken.append(member)
        left.is_empty = False


def _object_schema(fields: Mapping[str, Check], required: Collection[str]) -> Schema:
    properties = {
        name: check.schema if name in required else nullable(check.schema)
        for name, check in fields.items()
    }
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def nullable(schema: Schema) -> Schema:
    """The schema, or null, which counts as absent."""
    if schema == {"not": {}}:
        return {"type": "null"}
    kind = schema.get("type")
    if isinstance(kind, str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def unknown_member(name: str, fields: Collection[str]) -> WrongValueError:
    """The problem with a member of unknown name."""
    supported = "supported: " + ", ".join(sorted(fields))
    if not is_identifier(name):
        # Such a name is the client's text: it is not repeated.
        return WrongValueError(
            "there is an unknown field in '{path}'; " + supported, UnsupportedFieldError
        )
    near = difflib.get_close_matches(name, fields, n=1)
    return WrongValueError(
        "'{path}' is no field that is known here; "
        + supported
        + (f"; did you mean {near[0]}?" if near else ""),
        UnsupportedFieldError,
    ).within("." + name)


def shaped(shapes: Mapping[str, Check], default: str | None = None) -> Check:
    """An object whose `type` says which of several shapes it has; without one, that is `default`."""
    wrong_type = f"'{{path}}' must be one of: {', '.join(shapes)}"

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        _object(value)
        kind = value.get("type")
        kind = default if kind is None else kind
        shape = shapes.get(kind) if isinstance(kind, str) else None
        if shape is None:
            raise WrongValueError(wrong_type).within(".type")
        yield from shape.in_steps(value, left)

    core: CoreSchema = core_schema.tagged_union_schema(
        {kind: shape.core for kind, shape in shapes.items()}, "type", strict=True
    )
    if default is not None:
        without_type = _without_type(shapes[default].core)
        core = core_schema.union_schema([core, without_type], mode="left_to_right")
    schema = {"anyOf": [_typed(kind, shape, default) for kind, shape in shapes.items()]}
    return Check(schema, core, walk=walk)


def _without_type(core: Any) -> CoreSchema:
    members = {name: member for name, member in core["fields"].items() if name != "type"}
    return core_schema.typed_dict_schema(members, extra_behavior="forbid", strict=True)


def _typed(kind: str, shape: Check, default: str | None) -> Schema:
    properties = {**shape.schema["properties"], "type": {"type": "string", "const": kind}}
    required = [*shape.schema.get("required", ())]
    if kind != default and "type" not in required:
        required.insert(0, "type")
    return {**shape.schema, "properties": properties, "required": required}
