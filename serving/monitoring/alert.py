"""One rule: an expression that is recorded under a name, or one that raises an alert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from serving.monitoring.settings import MonitoringConfig

# `page`: users notice, somebody gets up. `ticket`: it can wait for the morning.
Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule."""

    name: str
    expr: str

    def as_rule(self, config: MonitoringConfig) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert; `for_s` is how long the expression must hold before it fires.

    `summary` and `description` are templates of Prometheus'.
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    description: str
    for_s: float = 0

    def as_rule(self, config: MonitoringConfig) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        held = {"for": config.duration(self.for_s)} if self.for_s else {}
        return {
            "alert": self.name,
            "expr": self.expr,
            **held,
            "labels": {"severity": self.severity, "service": "comptoir"},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{config.runbooks}#{self.name.lower()}",
            },
        }
