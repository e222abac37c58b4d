"""A strict validator for structural schemas of custom resources: defaults first, nothing unknown. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
TEXT_MAP: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
# The API server checks metadata itself, so schemas of custom resources leave it open.
METADATA: Schema = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "namespace": {"type": "string", "minLength": 1},
        "labels": TEXT_MAP,
        "annotations": TEXT_MAP,
    },
}


def with_defaults(schema: Schema, value: Any) -> Any:
    """A copy with defaults filled in, as the API server stores it."""
    if isinstance(value, dict):
        filled = dict(value)
        properties = schema.get("properties") or {}
        for name, member in properties.items():
            if name not in filled and "default" in member:
                filled[name] = copy.deepcopy(member["default"])
        for name, member in filled.items():
            below = properties.get(name, schema.get("additionalProperties"))
            if isinstance(below, dict):
                filled[name] = with_defaults(below, member)
        return filled
    if isinstance(value, list):
        return [with_defaults(schema.get("items") or {}, member) for member in value]
    return value


def problems(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """All violations, each with its path."""
    if value is None:
        if not schema.get("nullable"):
            yield f"{path}: is null"
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: is neither a number nor a text"
        elif isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
            yield f"{path}: {value!r} does not match"
        return
    kind = schema.get("type")
    if kind is not None:
        is_wrong = not isinstance(value, TYPES[kind]) or (
            kind != "boolean" and isinstance(value, bool)
        )
        if is_wrong:
            yield f"{path}: is not of type {kind}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if schema.get("x-kubernetes-validations"):
        yield f"{path}: has rules that are not evaluated here"
    if isinstance(value, dict):
        yield from _object(schema, value, path)
    elif isinstance(value, list):
        yield from _array(schema, value, path)
    else:
        yield from _scalar(schema, value, path)


def _object(schema: Schema, value: dict[Any, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties") or {}
    rest = schema.get("additionalProperties")
    for name in schema.get("required") or ():
        if name not in value:
            yield f"{path}.{name}: is required"
    for name, member in value.items():
        where = f"{path}.{name}"
        if not isinstance(name, str):
            yield f"{where}: a key must be a text"
        elif name in properties:
            yield from problems(properties[name], member, where)
        elif isinstance(rest, dict):
            yield from problems(rest, member, where)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{where}: is unknown"


def _array(schema: Schema, value: list[Any], path: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{path}: {len(value)} members"
    for index, member in enumerate(value):
        yield from problems(schema.get("items") or {}, member, f"{path}[{index}]")
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys and all(isinstance(member, dict) for member in value):
        seen = [tuple(member.get(key) for key in keys) for member in value]
        if len(set(seen)) < len(seen):
            yield f"{path}: two members have the same {', '.join(keys)}"


def _scalar(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{path}: {len(value)} characters"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match"
    elif not isinstance(value, bool):
        bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""), 1000)
        if isinstance(value, int) and not -(2**bits) <= value < 2**bits:
            yield f"{path}: is too large"
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: is out of range"
