"""Accounts, rights, priority, disruption budgets and monitoring around the RayService."""

from __future__ import annotations

from collections.abc import Sequence

from serving import api
from serving.kubernetes import names
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.names import Manifest
from serving.kubernetes.needs import Group


def service_account(account: str, name: str, namespace: str | None) -> Manifest:
    """An account; its token is mounted nowhere by itself."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": names.metadata(account, name, namespace),
        "automountServiceAccountToken": False,
    }


def autoscaler_role(name: str, namespace: str | None) -> Manifest:
    """The rights of Ray's autoscaler: read pods, and change the numbers of workers."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": names.metadata(f"{name}-autoscaler", name, namespace),
        "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "patch"]},
        ],
    }


def autoscaler_binding(name: str, namespace: str | None) -> Manifest:
    """For the head's account and no other."""
    subject = {"kind": "ServiceAccount", "name": names.head_account(name)}
    subject |= {} if namespace is None else {"namespace": namespace}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": names.metadata(f"{name}-autoscaler", name, namespace),
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": f"{name}-autoscaler",
        },
        "subjects": [subject],
    }


def priority_class(name: str) -> Manifest:
    """The priority of serving over batch jobs; it belongs to the cluster, not to a namespace."""
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": names.metadata(names.priority_class(name), name, None),
        "value": 1_000_000,
        "globalDefault": False,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": "Inference that clients wait for",
    }


def pod_monitor(name: str, namespace: str | None) -> Manifest:
    """Ray's exporter on every pod, for the Prometheus operator."""
    relabel = [
        {
            "sourceLabels": [f"__meta_kubernetes_pod_label_{label}"],
            "targetLabel": target,
            "action": "replace",
        }
        for label, target in (
            ("app_kubernetes_io_component", "component"),
            ("ray_io_cluster", "ray_cluster"),
        )
    ]
    endpoint = {
        "port": "metrics",
        "path": api.METRICS,
        "interval": "15s",
        "scrapeTimeout": "10s",
        "relabelings": relabel,
    }
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": names.metadata(name, name, namespace),
        "spec": {
            "selector": {"matchLabels": {names.INSTANCE: name}},
            "podMetricsEndpoints": [endpoint],
        },
    }


def disruption_budgets(
    config: KubernetesConfig, gateway_pods: int, groups: Sequence[Group]
) -> list[Manifest]:
    """The pods that stay while nodes are drained.

    For pods of a custom resource without a scale, Kubernetes allows `minAvailable` as a number only.
    """
    found = []
    if gateway_pods > 1:
        found.append(_budget(config, names.GATEWAY, gateway_pods - 1))
    # Pods of models are never ready (rayservice.py), so their budget refuses every eviction: nobody
    # takes minutes of loading away by emptying a node in passing.
    found += [_budget(config, group.name, group.pods_min) for group in groups if group.pods_min]
    return found


def _budget(config: KubernetesConfig, component: str, minimum: int) -> Manifest:
    selector = {names.INSTANCE: config.name, names.COMPONENT: component}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(f"{config.name}-{component}", config.name, config.namespace),
        "spec": {"minAvailable": minimum, "selector": {"matchLabels": selector}},
    }
