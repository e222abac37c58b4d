"""A route: the models that may answer a request, in order, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from serving.config.routing import Failure
from serving.records import record

Reason = Literal["named", "alias", "rule", "fallback"]


@dataclass(frozen=True)
class Verdict:
    """Whether a rule acts on a request, and why (not)."""

    rule: str
    acts: bool
    because: str


@dataclass(frozen=True)
class Skipped:
    """A model that was looked at and passed over."""

    name: str
    why: str


@record
class Candidate:
    """A model that may answer.

    `takes_over` says after which failures of which models (by served name) it is asked; the first one has
    none. `reason`: the client named it, it is an alias's arm, a rule of `auto` chose it, or it is a fallback.
    """

    model_id: str
    served_name: str
    reason: Reason
    takes_over: Mapping[str, frozenset[Failure]] = field(default_factory=dict)

    def is_due(self, failed: Mapping[str, Failure]) -> bool:
        """Whether to ask it, given how models failed that were asked before."""
        return not self.takes_over or any(
            failed.get(name) in on for name, on in self.takes_over.items()
        )


@dataclass(frozen=True)
class Notice:
    """What a client should know about the name it used. Days begin at 00:00 UTC and may lie ahead."""

    name: str
    deprecated_on: date | None
    retired_on: date | None
    successor: str | None


@record
class Route:
    """Who answers a request, in order, and how that came about. There is always a first candidate."""

    candidates: tuple[Candidate, ...]
    alias: str | None = None
    arm: str | None = None
    rule: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notices: tuple[Notice, ...] = ()

    def next(self, failed: Mapping[str, Failure]) -> Candidate | None:
        """Whom to ask, given how those asked before failed, by `served_name`; None when nobody is left."""
        for candidate in self.candidates:
            if candidate.served_name not in failed and candidate.is_due(failed):
                return candidate
        return None
