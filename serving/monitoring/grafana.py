"""Grafana's JSON for dashboards: panels flow from left to right, sources and models are variables.

Data model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/.
Nothing in it depends on one installation: the data source is a variable, uids are fixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 39
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UID_PREFIX = "comptoir-"

Kind = Literal["timeseries", "stat", "heatmap", "bargauge"]


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and how its series are called in the legend."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture; `unit` is one of Grafana's ids, `about` the text behind its title."""

    title: str
    queries: Sequence[Query]
    unit: str
    about: str = ""
    kind: Kind = "timeseries"
    width: int = 12
    height: int = 8
    stacked: bool = False
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """What a viewer chooses: values of a label, or a number that is typed in."""

    name: str
    label: str
    query: str
    kind: Literal["query", "textbox"] = "query"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page; `name` is the end of its uid and of its file."""

    name: str
    title: str
    about: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    since: str = "now-6h"
    tags: Sequence[str] = field(default=("comptoir",))

    @property
    def uid(self) -> str:
        """How links and provisioning find it, always the same."""
        return UID_PREFIX + self.name

    @property
    def panels(self) -> list[Panel]:
        """All pictures."""
        return [panel for row in self.rows for panel in row.panels]


def as_json(dashboard: Dashboard) -> str:
    """The file's text."""
    return json.dumps(document(dashboard), indent=2, ensure_ascii=False) + "\n"


def document(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": f"Comptoir: {dashboard.title}",
        "description": dashboard.about,
        "tags": list(dashboard.tags),
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": dashboard.since, "to": "now"},
        "templating": {"list": [_source(), *map(_variable, dashboard.variables)]},
        "annotations": {"list": [_alerts()]},
        "links": [_links()],
        "panels": _flow(dashboard.rows),
    }


def _flow(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": dict(_OPTIONS[panel.kind]),
    }


def _target(panel: Panel, query: Query, index: int) -> dict[str, Any]:
    at_once = panel.kind == "bargauge"
    return {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "instant": at_once,
        "range": not at_once,
    }


_REDUCE = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Mapping[Kind, Mapping[str, Any]] = {
    "timeseries": {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["mean", "max", "lastNotNull"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": _REDUCE,
        "colorMode": "none",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
    },
    "bargauge": {
        "reduceOptions": _REDUCE,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"unit": "s", "axisPlacement": "left", "reverse": False},
    },
}


def _source() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
        "regex": "",
    }


def _variable(variable: Variable) -> dict[str, Any]:
    common = {"name": variable.name, "label": variable.label, "hide": 0}
    if variable.kind == "textbox":
        current = {"text": variable.query, "value": variable.query}
        return {**common, "type": "textbox", "query": variable.query, "current": current}
    return {
        **common,
        "type": "query",
        "datasource": SOURCE,
        "definition": variable.query,
        "query": {"query": variable.query, "refId": "variable"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _alerts() -> dict[str, Any]:
    """Firing alerts as marks in every picture."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{service="comptoir",alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{model}} {{replica}}",
        "step": "60s",
    }


def _links() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Comptoir",
        "tags": ["comptoir"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
    }
