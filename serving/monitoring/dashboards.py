"""The dashboards by name: fleet, model, tenant, capacity, energy."""

from __future__ import annotations

from serving.monitoring.boards.load import capacity, energy
from serving.monitoring.boards.model import model
from serving.monitoring.boards.service import fleet, tenant
from serving.monitoring.grafana import Dashboard
from serving.monitoring.promql import metrics_in
from serving.monitoring.settings import MonitoringConfig


def dashboards(config: MonitoringConfig) -> list[Dashboard]:
    """All dashboards, in reading order."""
    return [fleet(config), model(config), tenant(), capacity(), energy()]


def expressions(dashboard: Dashboard) -> list[str]:
    """Its queries to Prometheus, variables included."""
    found = [query.expr for panel in dashboard.panels for query in panel.queries]
    for variable in dashboard.variables:
        if variable.kind == "query":
            found.append(variable.query.removeprefix("label_values(").rpartition(",")[0])
    return found


def metrics_of(dashboard: Dashboard) -> set[str]:
    """Names of the metrics that it needs."""
    return {name for expr in expressions(dashboard) for name in metrics_in(expr)}
