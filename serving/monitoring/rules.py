"""Prometheus rules: recording rules and alerts, and their YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serving.monitoring import alerts, slo
from serving.monitoring.alert import Alert, Record
from serving.monitoring.settings import MonitoringConfig

HEADER = "# Made by `comptoir monitoring rules`: change the settings, and make it again.\n"
# How often rules are evaluated.
INTERVAL_S = 30


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates one after the other."""

    name: str
    rules: Sequence[Record | Alert]


def groups(config: MonitoringConfig) -> list[Group]:
    """All rules; those that others use come first."""
    return [
        Group("comptoir-objectives", [*slo.records(config), *slo.alerts(config)]),
        Group("comptoir", [*alerts.records(config), *alerts.alerts(config)]),
    ]


def all_alerts(config: MonitoringConfig) -> list[Alert]:
    """The alerts alone."""
    return [rule for group in groups(config) for rule in group.rules if isinstance(rule, Alert)]


def all_records(config: MonitoringConfig) -> list[Record]:
    """The recording rules alone."""
    return [rule for group in groups(config) for rule in group.rules if isinstance(rule, Record)]


def document(config: MonitoringConfig) -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    interval = config.duration(INTERVAL_S)
    return {
        "groups": [
            {
                "name": group.name,
                "interval": interval,
                "rules": [rule.as_rule(config) for rule in group.rules],
            }
            for group in groups(config)
        ]
    }


def as_yaml(document: Any, header: str = HEADER) -> str:
    """YAML in which expressions keep their lines."""
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return header + text


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
