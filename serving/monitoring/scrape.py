"""Compares a gateway's metrics with those that rules and dashboards need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from serving.errors import ComptoirError
from serving.monitoring.dashboards import dashboards, metrics_of
from serving.monitoring.external import EXTERNAL
from serving.monitoring.promql import family, metrics_in
from serving.monitoring.rules import all_alerts, all_records
from serving.monitoring.settings import MonitoringConfig


@dataclass(frozen=True, slots=True)
class Found:
    """`missing` and `external`: metrics, and who names them."""

    present: frozenset[str]
    missing: Mapping[str, tuple[str, ...]]
    external: Mapping[str, tuple[str, ...]]


def needed(config: MonitoringConfig) -> dict[str, set[str]]:
    """Needed metrics, and the rules and dashboards that name them."""
    names: dict[str, set[str]] = {}
    recorded = {record.name for record in all_records(config)}
    users = [(board.uid, metrics_of(board)) for board in dashboards(config)]
    users += [(alert.name, metrics_in(alert.expr)) for alert in all_alerts(config)]
    users += [(record.name, metrics_in(record.expr)) for record in all_records(config)]
    for user, metrics in users:
        for metric in metrics - recorded:
            names.setdefault(metric, set()).add(user)
    return names


def exposed(text: str) -> frozenset[str]:
    """Names of the metrics that an exposition declares, those without a value yet too.

    Raises:
        ComptoirError: it is not in Prometheus' text format.
    """
    found = set()
    try:
        for each in text_string_to_metric_families(text):
            found.add(each.name + "_total" if each.type == "counter" else each.name)
            found.update(sample.name for sample in each.samples)
    except ValueError:
        raise ComptoirError("the answer is not in Prometheus' text format") from None
    return frozenset(found)


def compare(text: str, config: MonitoringConfig) -> Found:
    """The metrics that are present, missing, and from elsewhere."""
    declared = exposed(text)
    present, missing, external = set(), {}, {}
    for metric, users in sorted(needed(config).items()):
        if metric in EXTERNAL:
            external[metric] = tuple(sorted(users))
        elif metric in declared or family(metric) in declared:
            present.add(metric)
        else:
            missing[metric] = tuple(sorted(users))
    return Found(frozenset(present), missing, external)
