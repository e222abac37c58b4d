"""Checks of lists from which elements are left out that only other services know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from serving.trust.checker import Check, Schema
from serving.trust.checks import many, one_of
from serving.trust.leftovers import Leftovers


def selected(kinds: Collection[str], item: Check, high: int, default: str | None = None) -> Check:
    """A list of objects of some types; those of others, which only other services know, are left out."""

    def kind_of(element: Any) -> Any:
        kind = element.get("type") if isinstance(element, dict) else None
        return default if kind is None else kind

    foreign = {
        "type": "object",
        "properties": {"type": {"type": "string", "not": {"enum": [*kinds]}}},
        "required": ["type"],
        "description": "Accepted and not sent on.",
    }
    return _sifted(many(item, high=high), high, kinds, kind_of, foreign)


def words(*known: str, high: int) -> Check:
    """A list of words; those that only other services know are left out."""
    foreign = {"type": "string", "description": "Others are accepted and not sent on."}
    return _sifted(many(one_of(*known), high=high), high, known, lambda word: word, foreign)


def _sifted(
    listed: Check,
    high: int,
    known: Collection[str],
    kind_of: Callable[[Any], Any],
    foreign: Schema,
) -> Check:
    def is_foreign(element: Any) -> bool:
        kind = kind_of(element)
        return isinstance(kind, str) and kind not in known

    def walk(value: Any, left: Leftovers) -> Iterator[None]:
        if isinstance(value, list) and len(value) <= high and not left.is_strict:
            foreign = [kind_of(element) for element in value if is_foreign(element)]
            if foreign:
                left.taken += [element for element in value if is_foreign(element)]
                value[:] = [element for element in value if not is_foreign(element)]
                for kind in foreign:
                    left.note_element(kind)
        yield from listed.walk(value, left)

    schema = {**listed.schema, "items": {"anyOf": [listed.schema["items"], foreign]}}
    return Check(schema, listed.core, walk=walk)
