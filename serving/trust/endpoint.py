"""One endpoint's table: a row for each field, which says how it is checked and handled.

Checks, errors and the description in OpenAPI are made of the rows, and the tables in docs/api.md are held
against them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from serving import api
from serving.errors import MissingFieldError, UnsupportedFieldError
from serving.trust.checker import Check, WrongValueError, exhaust
from serving.trust.checks import keyed, unknown_member
from serving.trust.images import ImageLimits
from serving.trust.json_schemas import WITH_SCHEMAS, hold
from serving.trust.leftovers import MAX_MEMBERS, Leftovers


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
        absent: values, beside null, that ask for nothing: with one of them the field counts as absent.
        synonyms: other words for some values, and what is sent on for them.
    """

    name: str
    check: Check | None = None
    fate: Fate = Fate.FORWARDED
    required: bool = False
    why: str = ""
    absent: tuple[Any, ...] = ()
    synonyms: tuple[tuple[str, str], ...] = ()

    @classmethod
    def honoured(cls, name: str, why: str) -> Field:
        """A field that the gateway reads itself."""
        return cls(name, fate=Fate.HONOURED, why=why)

    @classmethod
    def dropped(cls, name: str, why: str, *, absent: tuple[Any, ...] = ()) -> Field:
        """A field that is accepted and ignored."""
        return cls(name, fate=Fate.DROPPED, why=why, absent=absent)

    @classmethod
    def refused(cls, name: str, why: str, *, absent: tuple[Any, ...] = ()) -> Field:
        """A field that would not do what the client means, or would do more."""
        return cls(name, fate=Fate.REFUSED, why=why, absent=absent)

    def asks_for_nothing(self, value: Any) -> bool:
        """Whether the field might as well not be there."""
        if value is None:
            return True
        # In Python, 0 is False and 1.0 is 1.
        return any(type(value) is type(one) and value == one for one in self.absent)


@dataclass(frozen=True, slots=True)
class Spelling:
    """A field of other services that is read here, and sent on as another.

    Attributes:
        write: puts a value that has passed into the body; what the client has put there itself is kept.
        means: the other field.
    """

    name: str
    check: Check
    write: Callable[[dict[str, Any], Any], None]
    means: str

    @property
    def row(self) -> Field:
        """Its row in the table."""
        return Field.honoured(self.name, f"sent on as '{self.means}'")


@dataclass(frozen=True)
class Endpoint:
    """One path of the API: what it accepts and which model tasks serve it.

    A field without a row is left out.
    """

    path: str
    rows: Mapping[str, Field]
    tasks: frozenset[api.Task]
    images: ImageLimits
    streams: bool = False
    dialect: api.Dialect = "openai"
    pairs: tuple[tuple[str, str], ...] = ()  # both names of one of them are required
    one_of: tuple[str, ...] = ()  # exactly one of them is required
    spellings: tuple[Spelling, ...] = ()

    @cached_property
    def fields(self) -> Mapping[str, Check]:
        """The check of each field that is sent on."""
        return {name: row.check for name, row in self.rows.items() if row.check is not None}

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The fields that no body may lack."""
        return tuple(name for name, row in self.rows.items() if row.required)

    def check(self, body: Mapping[str, Any], left: Leftovers | None = None) -> dict[str, Any]:
        """Validate a body and return what may be sent to an engine; the body itself may change.

        Args:
            left: notes what is left out, and says whether anything may be; by default, it may.

        Raises:
            MissingFieldError, InvalidFieldError, UnsupportedFieldError: naming the field.
        """
        images: list[None] = []
        left = left or Leftovers()
        try:
            kept = self._sent_on(body, left)
            if not self.members.passes(kept, context=images):
                exhaust(self.members.walk(kept, left))
                self._drop_absent(kept)
                # Should the two differ, all of it is looked at.
                images.append(None)
            self._rules(kept)
            if not WITH_SCHEMAS.isdisjoint(kept):
                exhaust(hold(kept))
            if images:
                exhaust(self.images.steps(kept))
        except WrongValueError as wrong:
            raise wrong.at("") from None
        return kept

    def check_in_steps(
        self, body: Mapping[str, Any], left: Leftovers | None = None
    ) -> Generator[None, None, dict[str, Any]]:
        """The same for a large body: others may run between two steps."""
        left = left or Leftovers()
        try:
            kept = self._sent_on(body, left)
            yield from self.members.walk(kept, left)
            self._drop_absent(kept)
            self._rules(kept)
            yield from hold(kept)
            yield from self.images.steps(kept)
        except WrongValueError as wrong:
            raise wrong.at("") from None
        return kept

    @cached_property
    def members(self) -> Check:
        """The check of a whole body's members."""
        return keyed(self.fields, self.required)

    @cached_property
    def _with_absent(self) -> frozenset[str]:
        """The fields that have values, beside null, that ask for nothing."""
        return frozenset(name for name, row in self.rows.items() if row.absent)

    @cached_property
    def _with_synonyms(self) -> frozenset[str]:
        return frozenset(name for name, row in self.rows.items() if row.synonyms)

    @cached_property
    def _spelt(self) -> frozenset[str]:
        return frozenset(spelling.name for spelling in self.spellings)

    def _sent_on(self, body: Mapping[str, Any], left: Leftovers) -> dict[str, Any]:
        """The fields that are sent on; JSON null counts as absent, everywhere."""
        fields = self.fields
        if len(body) > MAX_MEMBERS:
            raise WrongValueError(f"'{{path}}' may have at most {MAX_MEMBERS} fields")
        if not self._spelt.isdisjoint(body):
            body = self._respell(body, left)
        kept = {name: value for name, value in body.items() if value is not None and name in fields}
        if len(kept) < len(body):
            for name, value in body.items():
                if name not in kept and value is not None:
                    self._leave_out(name, value, left)
        self._drop_absent(kept)
        for name in self._with_synonyms.intersection(kept):
            if isinstance(word := kept[name], str):
                kept[name] = dict(self.rows[name].synonyms).get(word, word)
        return kept

    def _drop_absent(self, kept: dict[str, Any]) -> None:
        """Take out what asks for nothing, perhaps because a walk has left it empty."""
        for name in self._with_absent.intersection(kept):
            if self.rows[name].asks_for_nothing(kept[name]):
                del kept[name]

    def _respell(self, body: Mapping[str, Any], left: Leftovers) -> Mapping[str, Any]:
        """The body with the fields that others spell differently."""
        other = dict(body)
        for spelling in self.spellings:
            value = other.pop(spelling.name, None)
            if value is None:
                continue
            left.enter("." + spelling.name)
            try:
                exhaust(spelling.check.in_steps(value, left))
            except WrongValueError as wrong:
                wrong.within("." + spelling.name)
                raise
            left.leave()
            spelling.write(other, value)
        return other

    def _leave_out(self, name: str, value: Any, left: Leftovers) -> None:
        """Note a field that is not sent on.

        Raises:
            WrongValueError: the client has to know, because it asks for something that it would not get.
        """
        row = self.rows.get(name)
        if row is None:
            if left.is_strict:
                raise unknown_member(name, self.fields)
            left.note(name)
        elif row.fate is Fate.DROPPED and not row.asks_for_nothing(value):
            left.note(name)
        elif row.fate is Fate.REFUSED and not row.asks_for_nothing(value):
            raise WrongValueError(
                f"'{{path}}' is not supported: {row.why}", UnsupportedFieldError
            ).within("." + name)

    def _rules(self, kept: dict[str, Any]) -> None:
        """The rules that concern two fields."""
        if self.pairs:
            self._require_pair(kept)
        if self.one_of:
            self._require_one(kept)
        if not kept.get("tools"):
            _without_tools(kept)
        if held := _HELD.intersection(kept):
            _refuse_beside(kept, min(held))
        if kept.get("continue_final_message"):
            # Engines refuse it beside a prompt for a new message, which is their default.
            kept.setdefault("add_generation_prompt", False)
        if kept.get("echo") is True and "logprobs" in kept and self.path == api.COMPLETIONS:
            raise WrongValueError(
                "'{path}' is not supported with 'logprobs': it would recompute cached prompts",
                UnsupportedFieldError,
            ).within(".echo")
        if "stream_options" in kept and not kept.get("stream"):
            raise WrongValueError("'{path}' is only allowed with 'stream': true").within(
                ".stream_options"
            )
        if kept.get("n", 1) > 1 and kept.get("temperature", 1.0) < GREEDY:
            raise WrongValueError(
                "'{path}' must be 1 with temperature 0: all choices would be the same"
            ).within(".n")

    def _require_one(self, kept: Mapping[str, Any]) -> None:
        given = [name for name in self.one_of if name in kept]
        choices = " or ".join(f"'{name}'" for name in self.one_of)
        if not given:
            raise WrongValueError(
                f"'{{path}}' is required; send {choices}", MissingFieldError
            ).within("." + self.one_of[0])
        if len(given) > 1:
            raise WrongValueError(f"send {choices}, not both").within("." + given[1])

    def _require_pair(self, kept: Mapping[str, Any]) -> None:
        if any(kept.keys() >= set(pair) for pair in self.pairs):
            return
        begun = next((pair for pair in self.pairs if kept.keys() & set(pair)), self.pairs[0])
        missing = next(name for name in begun if name not in kept)
        choices = ", or ".join(f"'{first}' and '{second}'" for first, second in self.pairs)
        raise WrongValueError(f"'{{path}}' is required; send {choices}", MissingFieldError).within(
            "." + missing
        )


def _without_tools(kept: dict[str, Any]) -> None:
    """No tools are the same as none at all; engines refuse an empty list.

    Raises:
        WrongValueError: one of them has to be called.
    """
    was_given = kept.pop("tools", None) is not None
    choice = kept.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind in ("auto", "none") and was_given:
        del kept["tool_choice"]
    elif kind not in ("auto", "none", None):
        raise WrongValueError(
            "'{path}' needs functions in 'tools'; tools that other services run are left out"
        ).within(".tool_choice")
    if was_given:
        kept.pop("parallel_tool_calls", None)


def _refuse_beside(kept: Mapping[str, Any], name: str) -> None:
    """What takes tokens away may leave none that the format allows: the engine would fail."""
    for limits in ("allowed_token_ids", "bad_words"):
        if limits in kept:
            raise WrongValueError(f"'{{path}}' is not supported with '{name}'").within("." + limits)


# Each holds the answer to a format.
_HELD = frozenset({"structured_outputs", "response_format"})
# Below it vLLM takes the likeliest token (`_SAMPLING_EPS`), and refuses several choices.
GREEDY = 1e-5
