"""Names and labels that manifests refer to each other by."""

from __future__ import annotations

from typing import Any

from serving.kubernetes.config import KubernetesConfig

Manifest = dict[str, Any]

# KubeRay names its clusters anew at each upgrade, so everything here selects by labels of ours.
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
OVERLAY = "comptoir-overlay"
REGION = "topology.kubernetes.io/region"
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
NAMESPACE = "kubernetes.io/metadata.name"
HEAD, GATEWAY = "head", "gateway"

DASHBOARD_PORT = 8265
AGENT_PORT = 52365
METRICS_PORT = 8080


def labels(name: str, component: str | None = None) -> dict[str, str]:
    """Labels of an object, or of the pods of one component."""
    return {INSTANCE: name, PART_OF: "comptoir"} | ({COMPONENT: component} if component else {})


def metadata(name: str, instance: str, namespace: str | None, **more: str) -> Manifest:
    """An object's metadata; without a namespace where Kustomize sets it."""
    where = {} if namespace is None else {"namespace": namespace}
    return {"name": name, **where, "labels": labels(instance) | more}


def head_account(name: str) -> str:
    return f"{name}-head"


def worker_account(name: str) -> str:
    return f"{name}-worker"


def priority_class(name: str) -> str:
    return f"{name}-serving"


def api_service(name: str) -> str:
    return f"{name}-api"


def upgrade_gateway(name: str) -> str:
    """The Gateway that KubeRay makes for an incremental upgrade."""
    return f"{name}-gateway"


def is_incremental(config: KubernetesConfig) -> bool:
    return config.upgrade.strategy == "incremental"
