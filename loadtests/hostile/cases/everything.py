"""All cases, by group."""

from __future__ import annotations

from loadtests.hostile.case import Case
from loadtests.hostile.cases import bodies, framing, http, slow, tenants

GROUPS = (framing.cases, http.cases, bodies.cases, tenants.cases, slow.cases)


def every_case() -> list[Case]:
    """In the order in which they run: those that take long come last."""
    return [case for group in GROUPS for case in group.all]
