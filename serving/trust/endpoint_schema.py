"""JSON Schema 2020-12 of the bodies that an endpoint accepts: what /openapi.json says of it."""

from __future__ import annotations

from typing import Any

from serving import api
from serving.trust.checker import Schema
from serving.trust.checks import nullable
from serving.trust.endpoint import GREEDY, Endpoint, Fate

_STREAM_OPTIONS_RULE: Schema = {
    "anyOf": [
        {"properties": {"stream_options": {"type": "null"}}},
        {"properties": {"stream": {"const": True}}, "required": ["stream"]},
    ]
}
_GREEDY_RULE: Schema = {
    "anyOf": [
        {"properties": {"n": {"anyOf": [{"type": "null"}, {"const": 1}]}}},
        {"properties": {"temperature": {"anyOf": [{"type": "null"}, {"minimum": GREEDY}]}}},
    ]
}
_ECHO_RULE: Schema = {
    "anyOf": [
        {"properties": {"echo": {"not": {"const": True}}}},
        {"properties": {"logprobs": {"type": "null"}}},
    ]
}


def schema_of(endpoint: Endpoint) -> dict[str, Any]:
    """The schema of bodies that are not strict: members without a row are accepted and not sent on."""
    members = endpoint.members.schema
    schema = {
        **members,
        "properties": members["properties"] | _other_rows(endpoint) | _other_words(endpoint),
        "title": endpoint.path,
    }
    rules = _rules(endpoint)
    return schema | ({"allOf": rules} if rules else {})


def _other_rows(endpoint: Endpoint) -> dict[str, Schema]:
    """Of the fields that are not sent on under their own names."""
    found: dict[str, Schema] = {}
    for name, row in sorted(endpoint.rows.items()):
        if row.fate is Fate.REFUSED:
            found[name] = {"enum": [None, *row.absent], "description": f"Not supported: {row.why}."}
        elif row.fate is not Fate.FORWARDED:
            found[name] = {"description": "Accepted and not sent on."}
    for each in endpoint.spellings:
        described = {**each.check.schema, "description": f"Sent on as `{each.means}`."}
        found[each.name] = nullable(described)
    return found


def _other_words(endpoint: Endpoint) -> dict[str, Schema]:
    """Of the fields that have other words for some values."""
    return {
        name: {
            "anyOf": [
                nullable(endpoint.fields[name].schema),
                {"type": "string", "enum": [word for word, _ in row.synonyms]},
            ]
        }
        for name, row in endpoint.rows.items()
        if row.synonyms
    }


def _rules(endpoint: Endpoint) -> list[Schema]:
    rules: list[Schema] = []
    if endpoint.pairs:
        rules.append(_one_pair(endpoint.pairs))
    if endpoint.one_of:
        rules.append({"oneOf": [_given(name) for name in endpoint.one_of]})
    if "stream_options" in endpoint.fields:
        rules.append(_STREAM_OPTIONS_RULE)
    if "n" in endpoint.fields:
        rules.append(_GREEDY_RULE)
    if endpoint.path == api.COMPLETIONS:
        rules.append(_ECHO_RULE)
    return rules


def _one_pair(pairs: tuple[tuple[str, str], ...]) -> Schema:
    return {"anyOf": [_given(*pair) for pair in pairs]}


def _given(*names: str) -> Schema:
    return {"required": [*names], "properties": {name: {"not": {"type": "null"}} for name in names}}
