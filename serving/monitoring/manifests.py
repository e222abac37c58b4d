"""Files around the rules: Prometheus' configuration, and manifests for its operator and for Grafana."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.api import METRICS
from serving.kubernetes import names
from serving.monitoring.grafana import Dashboard, as_json
from serving.monitoring.rules import document
from serving.monitoring.settings import MonitoringConfig

RULES_FILE = "comptoir-rules.yaml"
# Name of a site's RayService, and the port's name in its pods (serving/kubernetes).
NAME, PORT_NAME, PORT = "comptoir", "serve", 8000
KEY_SECRET = {"name": "comptoir-metrics-key", "key": "api-key"}
MONITORING_NAMESPACE = "monitoring"


def prometheus(config: MonitoringConfig) -> dict[str, Any]:
    """An example of Prometheus' configuration, for machines without Kubernetes."""
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "30s"},
        "rule_files": [RULES_FILE],
        "scrape_configs": [
            {
                # Each gateway by itself, not the address that balances between them.
                "job_name": config.job,
                "static_configs": [{"targets": ["127.0.0.1:8000"]}],
            },
            {
                # Ray lists its nodes' exporters in this file, on the head node.
                "job_name": "ray",
                "file_sd_configs": [{"files": ["/tmp/ray/prom_metrics_service_discovery.json"]}],  # noqa: S108
            },
            {"job_name": "dcgm", "static_configs": [{"targets": ["127.0.0.1:9400"]}]},
        ],
    }


def operator(config: MonitoringConfig, boards: Sequence[Dashboard]) -> Mapping[str, list[Any]]:
    """Manifests by file."""
    return {
        "prometheus-rule.yaml": [_prometheus_rule(config)],
        "pod-monitor.yaml": [_pod_monitor(config)],
        "network-policy.yaml": [_network_policy()],
        "dashboards.yaml": [_config_map(board) for board in boards],
        "kustomization.yaml": [
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [
                    "prometheus-rule.yaml",
                    "pod-monitor.yaml",
                    "network-policy.yaml",
                    "dashboards.yaml",
                ],
            }
        ],
    }


def _prometheus_rule(config: MonitoringConfig) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _metadata(NAME),
        "spec": document(config),
    }


def _pod_monitor(config: MonitoringConfig) -> dict[str, Any]:
    """The gateways' own metrics; k8s/base has one for Ray's exporter."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _metadata(f"{NAME}-gateway"),
        "spec": {
            "selector": {"matchLabels": _gateway_pods()},
            "podMetricsEndpoints": [
                {
                    "port": PORT_NAME,
                    "path": METRICS,
                    "interval": "15s",
                    "scrapeTimeout": "10s",
                    "authorization": {"credentials": KEY_SECRET},
                    "relabelings": [
                        {"targetLabel": "job", "replacement": config.job, "action": "replace"}
                    ],
                }
            ],
        },
    }


def _network_policy() -> dict[str, Any]:
    peer = {"namespaceSelector": {"matchLabels": {names.NAMESPACE: MONITORING_NAMESPACE}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(f"{NAME}-gateway-metrics"),
        "spec": {
            "podSelector": {"matchLabels": _gateway_pods()},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [peer], "ports": [{"port": PORT, "protocol": "TCP"}]}],
        },
    }


def _config_map(board: Dashboard) -> dict[str, Any]:
    """Grafana's sidecar loads what has this label."""
    metadata = _metadata(f"{NAME}-dashboard-{board.name}")
    metadata["labels"]["grafana_dashboard"] = "1"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {f"{board.uid}.json": as_json(board)},
    }


def _gateway_pods() -> dict[str, str]:
    return {names.INSTANCE: NAME, names.COMPONENT: names.GATEWAY}


def _metadata(name: str) -> dict[str, Any]:
    return names.metadata(name, NAME, None)
