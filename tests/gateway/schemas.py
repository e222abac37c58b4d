"""Values that a JSON schema of ours describes, for hypothesis."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

# One pixel, in the two forms in which an image stands in a request.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
FORMATS = {
    "inline-image": st.just(f"data:image/png;base64,{PNG}"),
    "image-base64": st.just(PNG),
}
TEXTS = st.text(max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.just(1.5) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


def values_of(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """What fits the schema; `allOf` is left to the caller."""
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return st.one_of([values_of(one) for one in schema[several] if one != {"not": {}}])
    kinds = schema.get("type")
    if kinds is None:
        return ANYTHING
    if isinstance(kinds, list):
        return st.one_of([values_of({**schema, "type": kind}) for kind in kinds])
    return _MAKERS[kinds](schema)


def _object(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "propertyNames" in schema:
        names = st.from_regex(schema["propertyNames"]["pattern"], fullmatch=True)
        return st.dictionaries(names, values_of(schema["additionalProperties"]), max_size=3)
    if "properties" not in schema:
        return st.dictionaries(TEXTS, ANYTHING, max_size=3)
    required = set(schema.get("required", ()))
    made = {
        name: st.deferred(lambda one=one: values_of(one))
        for name, one in schema["properties"].items()
    }
    return st.fixed_dictionaries(
        {name: one for name, one in made.items() if name in required},
        optional={name: one for name, one in made.items() if name not in required},
    )


def _array(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    low = schema.get("minItems", 0)
    return st.lists(
        values_of(schema["items"]), min_size=low, max_size=min(low + 2, schema.get("maxItems", 9))
    )


def _number(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    least = schema.get("exclusiveMinimum")
    return st.floats(
        schema["minimum"] if least is None else least,
        schema["maximum"],
        exclude_min=least is not None,
    )


_MAKERS: dict[str, Any] = {
    "null": lambda schema: st.none(),
    "boolean": lambda schema: st.booleans(),
    "integer": lambda schema: st.integers(schema["minimum"], schema["maximum"]),
    "number": _number,
    "string": lambda schema: FORMATS.get(
        schema.get("format", ""), st.text(min_size=schema.get("minLength", 0), max_size=5)
    ),
    "array": _array,
    "object": _object,
}


def changed(value: Any, data: st.DataObject) -> Any:
    """The value with one place of it replaced, added or taken out."""
    value = json.loads(json.dumps(value))
    places = list(_places(value, ()))
    *path, last = data.draw(st.sampled_from(places))
    holder = value
    for key in path:
        holder = holder[key]
    change = data.draw(st.sampled_from(["replace", "drop", "add"]))
    if change == "drop":
        del holder[last]
    elif change == "add" and isinstance(holder, dict):
        holder[data.draw(TEXTS)] = data.draw(ANYTHING)
    else:
        holder[last] = data.draw(ANYTHING)
    return value


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, member in items:
        yield (*path, key)
        yield from _places(member, (*path, key))
