"""Every file that is generated: its path below a folder, and its text."""

from __future__ import annotations

from serving.monitoring import manifests
from serving.monitoring.dashboards import dashboards
from serving.monitoring.grafana import as_json
from serving.monitoring.rules import as_yaml, document
from serving.monitoring.settings import MonitoringConfig

PROMETHEUS_HEADER = """\
# Made by `comptoir monitoring rules`: an example for machines without Kubernetes. Yours to change.
# With API keys, the job of the gateways also needs
#   authorization: {credentials_file: /etc/prometheus/comptoir-key}
# and a key for it (`comptoir keys new prometheus --scope metrics`), which can do nothing else.
# Name each gateway by itself, not an address that balances between them.
"""


def rule_files(config: MonitoringConfig) -> dict[str, str]:
    """For Prometheus alone: its rules, and an example of its configuration."""
    return {
        manifests.RULES_FILE: as_yaml(document(config)),
        "prometheus.yml": as_yaml(manifests.prometheus(config), PROMETHEUS_HEADER),
    }


def dashboard_files(config: MonitoringConfig) -> dict[str, str]:
    """For Grafana: one file for each dashboard, to provision or to import."""
    return {f"{board.uid}.json": as_json(board) for board in dashboards(config)}


def kubernetes_files(config: MonitoringConfig) -> dict[str, str]:
    """For the Prometheus operator and Grafana's sidecar."""
    found = {}
    for name, documents in manifests.operator(config, dashboards(config)).items():
        texts = [as_yaml(one, "") for one in documents]
        found[name] = "# Made by `comptoir monitoring rules --kubernetes`.\n" + "---\n".join(texts)
    return found
