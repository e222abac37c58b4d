"""One endpoint's table: a row for each field, which says how it is checked and handled.

Checks, errors and the description in OpenAPI are made of the rows, and the tables in docs/api.md are held
against them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from serving import api
from serving.errors import MissingFieldError, UnsupportedFieldError
from serving.trust.checker import Check, Schema, WrongValueError, exhaust
from serving.trust.checks import keyed, unknown_member
from serving.trust.images import ImageLimits


class Fate(Enum):
    """The handling of a field."""

    FORWARDED = "checked and sent on"
    HONOURED = "for the gateway itself, and not sent on"
    DROPPED = "accepted, whatever it holds, and not sent on"
    REFUSED = "refused by name"


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the table.

    Attributes:
        check: what a field may hold that is sent on; of all others nothing is looked at.
        why: the reason for what becomes of it; of a refusal, it is the client's to read.
    """

    name: str
    check: Check | None = None
    fate: Fate = Fate.FORWARDED
    required: bool = False
    why: str = ""

    @classmethod
    def honoured(cls, name: str, why: str) -> Field:
        """A field that the gateway reads itself."""
        return cls(name, fate=Fate.HONOURED, why=why)

    @classmethod
    def dropped(cls, name: str, why: str) -> Field:
        """A field that is accepted and ignored."""
        return cls(name, fate=Fate.DROPPED, why=why)

    @classmethod
    def refused(cls, name: str, why: str) -> Field:
        """A field that would not do what the client means, or would do more."""
        return cls(name, fate=Fate.REFUSED, why=why)


@dataclass(frozen=True)
class Endpoint:
    """One path of the API: what it accepts and which model tasks serve it.

    A field without a row is refused, and its name, which is the client's text, is not repeated.
    """

    path: str
    rows: Mapping[str, Field]
    tasks: frozenset[api.Task]
    images: ImageLimits
    streams: bool = False
    dialect: api.Dialect = "openai"
    pairs: tuple[tuple[str, str], ...] = ()  # both names of one of them are required

    @cached_property
    def fields(self) -> Mapping[str, Check]:
        """The check of each field that is sent on."""
        return {name: row.check for name, row in self.rows.items() if row.check is not None}

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The fields that no body may lack."""
        return tuple(name for name, row in self.rows.items() if row.required)

    def check(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a body and return what may be sent to an engine.

        Raises:
            MissingFieldError, InvalidFieldError, UnsupportedFieldError: naming the field.
        """
        images: list[None] = []
        try:
            kept = self._sent_on(body)
            if not self._members.passes(kept, context=images):
                exhaust(self._members.walk(kept))
                # Should the two differ, all of it is looked at.
                images.append(None)
            self._rules(kept)
            if images:
                exhaust(self.images.steps(kept))
        except WrongValueError as wrong:
            raise wrong.at("") from None
        return kept

    def check_in_steps(self, body: Mapping[str, Any]) -> Generator[None, None, dict[str, Any]]:
        """The same for a large body: others may run between two steps."""
        try:
            kept = self._sent_on(body)
            yield from self._members.walk(kept)
            self._rules(kept)
            yield from self.images.steps(kept)
        except WrongValueError as wrong:
            raise wrong.at("") from None
        return kept

    @cached_property
    def _members(self) -> Check:
        return keyed(self.fields, self.required)

    @cached_property
    def schema(self) -> Schema:
        """JSON Schema of the bodies that it accepts."""
        silent = {
            name: {"description": "Accepted and not sent on."}
            for name, row in sorted(self.rows.items())
            if row.fate in (Fate.HONOURED, Fate.DROPPED)
        }
        members = self._members.schema
        schema: dict[str, Any] = {
            **members,
            "properties": {**members["properties"], **silent},
            "title": self.path,
        }
        rules: list[Schema] = []
        if self.pairs:
            rules.append(_one_pair(self.pairs))
        if "stream_options" in self.fields:
            rules.append(_STREAM_OPTIONS_RULE)
        if "n" in self.fields:
            rules.append(_GREEDY_RULE)
        return schema | ({"allOf": rules} if rules else {})

    def _sent_on(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are sent on, if all are known; JSON null counts as absent, everywhere."""
        fields = self.fields
        kept = {name: value for name, value in body.items() if value is not None and name in fields}
        if len(kept) < len(body):
            for name in body:
                if name not in fields:
                    self._may_be_left_out(name)
        return kept

    def _may_be_left_out(self, name: str) -> None:
        row = self.rows.get(name)
        if row is None:
            raise unknown_member(name, self.fields)
        if row.fate is Fate.REFUSED:
            raise WrongValueError(
                f"'{{path}}' is not supported: {row.why}", UnsupportedFieldError
            ).within("." + name)

    def _rules(self, kept: Mapping[str, Any]) -> None:
        """The rules that concern two fields."""
        if self.pairs:
            self._require_pair(kept)
        if "stream_options" in kept and not kept.get("stream"):
            raise WrongValueError("'{path}' is only allowed with 'stream': true").within(
                ".stream_options"
            )
        if kept.get("n", 1) > 1 and kept.get("temperature", 1.0) < GREEDY:
            raise WrongValueError(
                "'{path}' must be 1 with temperature 0: all choices would be the same"
            ).within(".n")

    def _require_pair(self, kept: Mapping[str, Any]) -> None:
        if any(kept.keys() >= set(pair) for pair in self.pairs):
            return
        begun = next((pair for pair in self.pairs if kept.keys() & set(pair)), self.pairs[0])
        missing = next(name for name in begun if name not in kept)
        choices = ", or ".join(f"'{first}' and '{second}'" for first, second in self.pairs)
        raise WrongValueError(f"'{{path}}' is required; send {choices}", MissingFieldError).within(
            "." + missing
        )


# Below it vLLM takes the likeliest token (`_SAMPLING_EPS`), and refuses several choices.
GREEDY = 1e-5
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


def _one_pair(pairs: tuple[tuple[str, str], ...]) -> Schema:
    given: Schema = {"not": {"type": "null"}}
    return {
        "anyOf": [
            {"required": list(pair), "properties": dict.fromkeys(pair, given)} for pair in pairs
        ]
    }
