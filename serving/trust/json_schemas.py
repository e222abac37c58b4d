"""What the engines' grammar compiler can hold an answer to, of a JSON schema. Pure.

Engines are pinned to xgrammar: vLLM's `auto` lets one request's schema decide for all that follow. What
xgrammar ignores or gets wrong is refused here, with its place, because the answer would not obey the schema.
The list is vLLM's own (`has_xgrammar_unsupported_json_features`); tests/engine/test_json_schemas.py holds
this one against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from serving.trust.checker import WrongValueError
from serving.trust.regexes import objection

Node = Mapping[str, Any]
_FORMATS = frozenset(
    {
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    }
)
_OF_ARRAYS = ("uniqueItems", "contains", "minContains", "maxContains")
_LENGTHS = ("minLength", "maxLength")


def unsupported(schema: Any) -> tuple[str, str] | None:
    """The place of the first part that no answer can be held to, and why; None when there is none.

    Args:
        schema: JSON; its size has been checked (`serving.trust.sizes`).
    """
    return _first(schema, _objections)


def _first(
    schema: Any, look: Callable[[Node], Iterator[tuple[str, str]]]
) -> tuple[str, str] | None:
    """What is found first, in the order of the text: its place, and why."""
    for place, node in _placed(schema):
        for name, why in look(node):
            return f"{place}.{name}", why
    return None


def _placed(schema: Any) -> Iterator[tuple[str, Node]]:
    """Every object in a schema, and where it stands."""
    stack: list[tuple[str, Any]] = [("", schema)]
    while stack:
        place, node = stack.pop()
        if isinstance(node, Mapping):
            yield place, node
            stack.extend((f"{place}{_step(key)}", value) for key, value in [*node.items()][::-1])
        elif isinstance(node, list):
            stack.extend((f"{place}[{index}]", value) for index, value in [*enumerate(node)][::-1])


def _step(key: str) -> str:
    """A key in a path; one that is no identifier may be content."""
    return f".{key}" if key.isascii() and key.isidentifier() and len(key) <= 40 else "[...]"


def _objections(node: Node) -> Iterator[tuple[str, str]]:
    kinds = _types(node)
    if kinds & {"integer", "number"} and "multipleOf" in node:
        yield "multipleOf", "it is not held to"
    if "array" in kinds:
        yield from ((name, "it is not held to") for name in _OF_ARRAYS if name in node)
    if "string" in kinds:
        if "format" in node and node["format"] not in _FORMATS:
            yield "format", "this format is unknown; known: " + ", ".join(sorted(_FORMATS))
        if _patterned(node):
            yield (
                next(each for each in _LENGTHS if each in node),
                "it is not held to beside a pattern or format",
            )
    if "object" in kinds:
        yield from _of_object(node)
    if isinstance(parts := node.get("allOf"), list) and len(parts) > 1:
        yield "allOf", "only one of its schemas is held to: write them as one"


def _of_object(node: Node) -> Iterator[tuple[str, str]]:
    if "propertyNames" in node:
        names = node["propertyNames"]
        beside = next((each for each in ("patternProperties", "properties") if each in node), None)
        if isinstance(names, Mapping) and _patterned(names):
            yield "propertyNames", "a length is not held to beside a pattern or format"
        elif beside is not None:
            yield "propertyNames", f"it is not held to beside '{beside}'"
        elif node.get("unevaluatedProperties", True) is not True:
            yield "propertyNames", "it is not held to beside 'unevaluatedProperties'"
    if isinstance(patterns := node.get("patternProperties"), Mapping):
        if "properties" in node:
            yield "patternProperties", "it is not held to beside 'properties'"
        elif len(patterns) > 1:
            yield "patternProperties", "only one pattern is held to"


def _patterned(node: Node) -> bool:
    return ("pattern" in node or "format" in node) and any(each in node for each in _LENGTHS)


def _types(node: Node) -> set[str]:
    kinds = node.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    return {kind for kind in listed if isinstance(kind, str)}


_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})


def compiles(schema: Any) -> bool:
    """Whether a schema has none of the parts that xgrammar is known to refuse.

    Only it can tell for sure; this is for a schema that has to be held to only if that is possible.
    """
    return dangerous(schema) is None and all(
        _types(node) <= _TYPES
        and not isinstance(node.get("items"), list)
        and not _forbids(node.get("properties"))
        and _leads_on(node.get("$ref"), schema)
        for _, node in _placed(schema)
    )


def _forbids(properties: Any) -> bool:
    return isinstance(properties, Mapping) and False in properties.values()


def _leads_on(reference: Any, root: Any) -> bool:
    return not isinstance(reference, str) or _resolved(reference, root) is not None


def _resolved(reference: str, root: Any) -> Any:
    """Where a JSON pointer (RFC 6901) leads in the same schema; None: nowhere."""
    if not reference.startswith("#"):
        return None
    node = root
    for step in reference[1:].split("/")[1:]:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


def dangerous(schema: Any) -> tuple[str, str] | None:
    """The place of the first part that would stop an engine, and why: an expression, an endless reference."""
    endless = (".$ref", "it leads back to itself")
    return _first(schema, _dangers) or (endless if _is_endless(schema) else None)


def _dangers(node: Node) -> Iterator[tuple[str, str]]:
    if isinstance(pattern := node.get("pattern"), str) and (why := objection(pattern)):
        yield "pattern", why
    if isinstance(patterns := node.get("patternProperties"), Mapping):
        yield from (("patternProperties", why) for each in patterns if (why := objection(each)))


def _is_endless(root: Any) -> bool:
    """Whether some part stands for itself, without a member or an item between."""
    state: dict[int, bool] = {}
    stack = [(node, False) for _, node in _placed(root) if "$ref" in node]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            state[id(node)] = True
        elif id(node) not in state:
            state[id(node)] = False
            stack.append((node, True))
            for other in _same_as(node, root):
                if state.get(id(other)) is False:
                    return True
                stack.append((other, False))
    return False


def _same_as(node: Node, root: Any) -> Iterator[Node]:
    """The schemas that a schema stands for."""
    targets = [_resolved(node["$ref"], root)] if isinstance(node.get("$ref"), str) else []
    for name in ("anyOf", "oneOf", "allOf"):
        targets += node[name] if isinstance(node.get(name), list) else []
    return (target for target in targets if isinstance(target, Mapping))


# ---- of a request --------------------------------------------------------------------------------------

# Where a format of the whole answer stands.
_FORMATS_AT = (
    ("response_format", "json_schema", "schema"),
    ("text", "format", "schema"),
    ("output_config", "format", "schema"),
    ("structured_outputs", "json"),
)
WITH_SCHEMAS = frozenset({"tools", *(path[0] for path in _FORMATS_AT)})
# Where a tool's schema stands, in chats, responses and messages.
_PARAMETERS = ("parameters", "input_schema")


def hold(body: dict[str, Any]) -> Iterator[None]:
    """Refuse schemas that no answer could be held to, and hold forced calls to those that one could be.

    A client that forces a call reads its arguments without looking; without `strict`, engines let a model
    write any JSON there. Where the schema cannot be held to, a call that is not strict stays as it is.

    Args:
        body: has been checked, and changes.

    Raises:
        WrongValueError: naming the place.
    """
    for path in _FORMATS_AT:
        value: Any = body
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            _refuse(value, "".join(f".{name}" for name in path))
            yield
    forced = _forced(body.get("tool_choice"))
    for index, tool in enumerate(body.get("tools") or ()):
        function, place = tool.get("function", tool), f".tools[{index}]"
        place += ".function" if "function" in tool else ""
        of_tool = next((each for each in _PARAMETERS if each in function), None)
        if of_tool is None:
            continue
        if function.get("strict"):
            _refuse(function[of_tool], f"{place}.{of_tool}")
            yield
        elif forced in (ANY, function["name"]) and "strict" not in function:
            if unsupported(function[of_tool]) is None and compiles(function[of_tool]):
                function["strict"] = True
            yield


# Every function may be called, and one has to be; no function's name is a word with a blank.
ANY = "any function"


def _forced(choice: Any) -> str | None:
    """The name of the function that has to be called, or `ANY`."""
    if choice == "required":
        return ANY
    if not isinstance(choice, dict):
        return None
    if choice.get("type") == "any":
        return ANY
    named = choice.get("function", choice).get("name")
    return named if isinstance(named, str) else None


def _refuse(schema: Any, place: str) -> None:
    if (found := unsupported(schema) or dangerous(schema)) is not None:
        where, why = found
        raise WrongValueError(f"'{{path}}' is not supported in schemas: {why}").within(
            place + where
        )
