"""A route: the models that may answer a request, in order, and how it came about. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import date
from typing import Literal

from serving.config.routing import Failure
from serving.records import record

Reason = Literal["named", "alias", "rule", "fallback"]


@record
class Verdict:
    """The result of a rule for a request: whether it acts, and why (not)."""

    rule: str
    acts: bool
    because: str


@record
class Skipped:
    """A model that was looked at and passed over."""

    name: str
    why: str


@record
class Candidate:
    """A model that may answer.

    `takes_over` has, by served name, the failures of other models after which it is asked; the first
    candidate has none. `reason`: the client named it, it is an alias's arm, a rule of `auto` chose it, or it
    is a fallback.
    """

    model_id: str
    served_name: str
    reason: Reason
    takes_over: Mapping[str, frozenset[Failure]] = field(default_factory=dict)

    def is_due(self, failed: Mapping[str, Failure]) -> bool:
        """Whether to ask it, after these failures of the models that were asked before."""
        return not self.takes_over or any(
            failed.get(name) in on for name, on in self.takes_over.items()
        )


@record
class Notice:
    """The dates of a name that a client used. Days begin at 00:00 UTC and may lie ahead."""

    name: str
    deprecated_on: date | None
    retired_on: date | None
    successor: str | None


@record
class Route:
    """The candidates for a request, in order, and how they came about. There is at least one."""

    candidates: tuple[Candidate, ...]
    alias: str | None = None
    arm: str | None = None
    rule: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notices: tuple[Notice, ...] = ()

    def next(self, failed: Mapping[str, Failure]) -> Candidate | None:
        """The next candidate after these failures, by `served_name`; None when none is left."""
        for candidate in self.candidates:
            if candidate.served_name not in failed and candidate.is_due(failed):
                return candidate
        return None
