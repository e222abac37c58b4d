"""Configuration of model routing: aliases, lifetimes, fallbacks and the rules of `auto`.

These are the gateway's `args.routing`. Which models exist is not known here: `comptoir check` compares
the names with the file's models through `serving.routing.unknown_models`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from serving.api import Kind
from serving.config.base import FrozenConfig

Failure = Literal["unhealthy", "saturated", "context", "deadline"]
Script = Literal[
    "latin", "cyrillic", "greek", "arabic", "hebrew", "indic", "thai", "cjk", "hangul", "other"
]
Language = Literal[
    "en", "de", "fr", "es", "it", "nl", "pl", "pt", "zh", "ja", "ko", "el", "he", "th"
]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

# What a model's card says by itself, from its parsers and modalities.
KNOWN_CAPABILITIES = frozenset({"tools", "json_schema", "reasoning", "vision"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,95}")
_WORD = re.compile(r"[a-z][a-z0-9_:-]{0,31}")


def _is_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a name: letters, digits and . _ / : - only, at most 96 characters"
        )
    return value


def _is_word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a capability: lower-case letters, digits and _ : - only, at most 32"
        )
    return value


def _is_quoted(value: Any) -> Any:
    # YAML reads a bare date as one; Ray Serve sends the file on as JSON, which has none.
    if not isinstance(value, str):
        raise ValueError("write a day as '2026-11-30', in quotes")
    return value


Name = Annotated[str, AfterValidator(_is_name)]
Word = Annotated[str, AfterValidator(_is_word)]
Day = Annotated[date, BeforeValidator(_is_quoted)]


class Lifetime(FrozenConfig):
    """When a name is deprecated and when it stops answering: days that begin at 00:00 UTC."""

    deprecated_on: Day | None = None
    retired_on: Day | None = None
    successor: Name | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        begin, end = self.deprecated_on, self.retired_on
        # RFC 9745, 4: the Sunset date must not be earlier than the Deprecation date.
        if begin and end and end < begin:
            raise ValueError(f"retired_on ({end}) is before deprecated_on ({begin})")
        if self.successor and not (begin or end):
            raise ValueError("successor says what comes next: add deprecated_on or retired_on")
        return self

    def is_retired(self, today: date) -> bool:
        """Whether the name no longer answers on this day (UTC)."""
        return self.retired_on is not None and today >= self.retired_on


class Arm(FrozenConfig):
    """One of the models that an alias stands for; weights are relative to each other."""

    model: Name
    weight: float = Field(default=1.0, gt=0, le=1_000_000)


class Alias(Lifetime):
    """A site's own name for one model, or for several with shares."""

    arms: tuple[Arm, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """`fast: qwen3-8b` and `chat: [{model: ..., weight: ...}]` are aliases too."""
        if isinstance(value, str):
            return {"arms": [{"model": value}]}
        return {"arms": value} if isinstance(value, list | tuple) else value

    @field_validator("arms")
    @classmethod
    def _arms_are_unique(cls, value: tuple[Arm, ...]) -> tuple[Arm, ...]:
        _no_name_twice(arm.model for arm in value)
        return value


class ModelFacts(Lifetime):
    """What the site knows of a model beyond its card."""

    cost: float | None = Field(
        default=None, ge=0, description="EUR per million tokens, or any number that orders models"
    )
    # None: what the model's card says. A list replaces that.
    capabilities: tuple[Word, ...] | None = None


class Fallback(FrozenConfig):
    """The models that answer instead of a model, in this order, and the failures that call for them."""

    # `after` and not `on`, which YAML reads as true.
    to: tuple[Name, ...] = Field(min_length=1, max_length=8)
    after: frozenset[Failure] = Field(
        default=frozenset({"unhealthy", "saturated", "context", "deadline"}), min_length=1
    )

    @field_validator("to")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _no_name_twice(value)
        return value


class When(FrozenConfig):
    """Conditions on a request's features; all that are given must hold. Tokens are estimates."""

    endpoint: tuple[Kind, ...] | None = Field(default=None, min_length=1)
    tools: bool | None = None
    json_schema: bool | None = None
    images: bool | None = None
    stream: bool | None = None
    min_input_tokens: int | None = Field(default=None, ge=0)
    max_input_tokens: int | None = Field(default=None, ge=0)
    max_output_tokens: int | None = Field(
        default=None, ge=1, description="holds for requests that ask for so many at most"
    )
    min_turns: int | None = Field(default=None, ge=0)
    max_turns: int | None = Field(default=None, ge=0)
    min_code_share: float | None = Field(default=None, ge=0, le=1)
    max_code_share: float | None = Field(default=None, ge=0, le=1)
    script: tuple[Script, ...] | None = Field(default=None, min_length=1)
    language: tuple[Language, ...] | None = Field(default=None, min_length=1)
    reasoning_effort: tuple[Effort, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        if not self.conditions:
            raise ValueError("names no condition: leave `when` out for a rule that always acts")
        for what in ("input_tokens", "turns", "code_share"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{what} ({low}) is larger than max_{what} ({high})")
        return self

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions that are given, in the order in which they are tried."""
        return {
            name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }


class Choose(FrozenConfig):
    """Chooses those models under `models` that have all capabilities, the cheapest or the first first."""

    need: tuple[Word, ...] = ()
    prefer: Literal["cost", "list"] = "cost"


class AutoRule(FrozenConfig):
    """One rule of `auto`. Exactly one of `choose` and `models`; without `when` it always acts."""

    name: Name
    when: When | None = None
    choose: Choose | None = None
    models: tuple[Name, ...] = Field(default=(), max_length=8)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.choose is None) == (not self.models):
            raise ValueError("give either `choose` or `models`")
        return self

    @field_validator("models")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _no_name_twice(value)
        return value


class RoutingConfig(FrozenConfig):
    """Which model answers which name. Empty: every model answers to its own names only."""

    aliases: dict[Name, Alias] = Field(default_factory=dict)
    models: dict[Name, ModelFacts] = Field(default_factory=dict)
    fallbacks: dict[Name, Fallback] = Field(default_factory=dict)
    auto: tuple[AutoRule, ...] = Field(default=(), max_length=64)
    auto_name: Name = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_successors()
        self._check_fallbacks()
        self._check_auto()
        return self

    def lifetime(self, name: str) -> Lifetime | None:
        """The dates of a name: its alias's, else its model's."""
        return self.aliases.get(name) or self.models.get(name)

    def _check_successors(self) -> None:
        if self.auto_name in self.aliases:
            raise ValueError(
                f"aliases.{self.auto_name}: is the name that starts the rules of `auto`: rename the "
                "alias or set `auto_name`"
            )
        # A name that is both means the alias, so that comes second.
        named: list[tuple[str, str, Lifetime]] = [
            *(("models", name, facts) for name, facts in self.models.items()),
            *(("aliases", name, alias) for name, alias in self.aliases.items()),
        ]
        follow: dict[str, tuple[str, ...]] = {}
        for key, name, entry in named:
            if entry.successor == name:
                raise ValueError(f"{key}.{name}: successor: is the name itself")
            follow[name] = (entry.successor,) if entry.successor else ()
        cycle = _cycle(follow)
        if cycle:
            raise ValueError(f"successor: goes in a circle: {' -> '.join(cycle)}")

    def _check_fallbacks(self) -> None:
        for name, fallback in self.fallbacks.items():
            if name in fallback.to:
                raise ValueError(f"fallbacks.{name}: to: names the model itself")
            for one in (name, *fallback.to):
                if one == self.auto_name and self.auto:
                    raise ValueError(f"fallbacks.{name}: {one!r} starts rules: name models here")
        cycle = _cycle({name: fallback.to for name, fallback in self.fallbacks.items()})
        if cycle:
            raise ValueError(f"fallbacks: go in a circle: {' -> '.join(cycle)}")

    def _check_auto(self) -> None:
        if not self.auto:
            return
        try:
            _no_name_twice(rule.name for rule in self.auto)
        except ValueError as error:
            raise ValueError(f"auto: {error}") from None
        for rule in self.auto[:-1]:
            if rule.when is None:
                raise ValueError(
                    f"auto: the rule {rule.name!r} has no `when` and always acts: put it last"
                )
        if self.auto[-1].when is not None:
            raise ValueError("auto: the last rule is the default and must have no `when`")
        stated = {word for facts in self.models.values() for word in facts.capabilities or ()}
        for rule in self.auto:
            if rule.choose is None:
                continue
            if not self.models:
                raise ValueError(
                    f"auto: the rule {rule.name!r} chooses among `routing.models`, which is empty"
                )
            for word in rule.choose.need:
                if word not in stated | KNOWN_CAPABILITIES:
                    known = ", ".join(sorted(stated | KNOWN_CAPABILITIES))
                    raise ValueError(
                        f"auto: the rule {rule.name!r} needs {word!r}, which no model under "
                        f"`routing.models` has as a capability; available: {known}"
                    )


def _no_name_twice(names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"the name {name!r} appears twice")


def _cycle(edges: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """The names on one circle, the first of them again at its end; None without a circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        # It lists every name before the one that points to it.
        return list(reversed(error.args[1]))
    return None
