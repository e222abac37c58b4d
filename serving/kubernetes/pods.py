"""Pod templates: one shape for head, gateways and models, under the restricted security standard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.environment import cluster_environment
from serving.kubernetes import names
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.names import Manifest
from serving.kubernetes.serve_config import ClusterServe
from serving.kubernetes.storage import Storage

USER = 10001
HOME = "/home/comptoir"
_HEALTH = f"http://localhost:{names.AGENT_PORT}/api/healthz"


@dataclass(frozen=True)
class PodShape:
    """The differences between the groups."""

    component: str
    container: str
    image: str
    account: str
    resources: Manifest
    shm: str
    readiness: Manifest
    ports: tuple[tuple[str, int], ...]
    grace_s: int
    env: Mapping[str, str] = field(default_factory=dict)
    storage: Storage = Storage()  # noqa: RUF009  # frozen
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()
    spread_over: tuple[str, ...] = (names.ZONE,)
    annotations: Mapping[str, str] = field(default_factory=dict)
    pre_stop_s: int = 0
    volumes: tuple[Manifest, ...] = ()


def pod_template(config: KubernetesConfig, serve: ClusterServe, shape: PodShape) -> Manifest:
    """The template of one group."""
    keys_volumes, keys_mounts = _keys(config, serve)
    own = [
        _empty("tmp", "8Gi"),
        _empty("home", "32Gi"),
        {"name": "shared-mem", "emptyDir": {"medium": "Memory", "sizeLimit": shape.shm}},
    ]
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # an emptyDir, in the pod alone
        {"name": "home", "mountPath": HOME},
        {"name": "shared-mem", "mountPath": "/dev/shm"},  # noqa: S108
        *keys_mounts,
        *shape.storage.mounts,
    ]
    container: Manifest = {
        "name": shape.container,
        "image": shape.image,
        "imagePullPolicy": "IfNotPresent",
        "env": _env(config, shape),
        "ports": [{"name": name, "containerPort": port} for name, port in shape.ports],
        "resources": shape.resources,
        "startupProbe": _probe(_wget(_HEALTH), period_s=5, failures=120),
        "livenessProbe": _probe(_wget(_HEALTH), period_s=10, failures=12),
        "readinessProbe": shape.readiness,
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    if shape.pre_stop_s:
        # New requests go elsewhere meanwhile, and streams end.
        stop = {"command": ["sleep", str(shape.pre_stop_s)]}
        container["lifecycle"] = {"preStop": {"exec": stop}}
    spec: Manifest = {
        "serviceAccountName": shape.account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": names.priority_class(config.name),
        "terminationGracePeriodSeconds": shape.grace_s,
        "securityContext": pod_security(),
    }
    if config.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    if shape.node_selector:
        spec["nodeSelector"] = dict(shape.node_selector)
    if shape.tolerations:
        spec["tolerations"] = list(shape.tolerations)
    if config.regions:
        spec["affinity"] = _in_regions(config.regions)
    spec["topologySpreadConstraints"] = [_spread(config, shape, key) for key in shape.spread_over]
    if shape.storage.init_containers:
        spec["initContainers"] = list(shape.storage.init_containers)
    spec["containers"] = [container]
    spec["volumes"] = [*own, *keys_volumes, *shape.storage.volumes, *shape.volumes]
    meta: Manifest = {
        "labels": names.labels(config.name, shape.component) | {names.OVERLAY: config.overlay}
    }
    if shape.annotations:
        meta["annotations"] = dict(shape.annotations)
    return {"metadata": meta, "spec": spec}


def ray_is_up() -> Manifest:
    """The probe of pods that are ready as soon as their Ray is."""
    return _probe(_wget(_HEALTH), period_s=5, failures=3)


def answers_clients(port: int, path: str) -> Manifest:
    """The probe of pods that are ready while a gateway answers: KubeRay's Services route to ready pods."""
    return _probe(_wget(f"http://localhost:{port}{path}"), period_s=5, failures=2)


def pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def resources(cpu: str, memory: str, **extended: str) -> Manifest:
    """Requests equal to limits: the pod loses nothing under pressure."""
    amounts = {"cpu": cpu, "memory": memory} | extended
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _env(config: KubernetesConfig, shape: PodShape) -> list[Manifest]:
    values = cluster_environment() | {
        "HOME": HOME,
        "COMPTOIR_CACHE_DIR": f"{HOME}/.cache/comptoir",
        "HF_HOME": f"{HOME}/.cache/huggingface",
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAYLLM_ENGINE_START_TIMEOUT_S": str(config.engine_start_timeout_s),
        **shape.storage.env,
        **shape.env,
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _keys(
    config: KubernetesConfig, serve: ClusterServe
) -> tuple[list[Manifest], list[dict[str, Any]]]:
    # In every pod: Serve builds the gateway's application wherever it likes. Hashes only. The whole Secret,
    # so that another file of it can be named without changing a pod.
    if serve.keys_file is None:
        return [], []
    secret = {"secretName": config.keys_secret, "defaultMode": 0o440}
    mount = {"name": "keys", "mountPath": str(serve.keys_file.parent), "readOnly": True}
    return [{"name": "keys", "secret": secret}], [mount]


def _wget(url: str) -> str:
    return f"wget -q -T 5 -O /dev/null {url}"


def _probe(command: str, *, period_s: int, failures: int) -> Manifest:
    # Seconds to answer, because the agent shares its cores with an engine that loads weights.
    return {
        "exec": {"command": ["bash", "-c", command]},
        "timeoutSeconds": 6,
        "periodSeconds": period_s,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


def _in_regions(regions: tuple[str, ...]) -> Manifest:
    expression = {"key": names.REGION, "operator": "In", "values": list(regions)}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}


def _spread(config: KubernetesConfig, shape: PodShape, key: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {
            "matchLabels": {names.INSTANCE: config.name, names.COMPONENT: shape.component}
        },
    }


def _empty(name: str, limit: str) -> Manifest:
    return {"name": name, "emptyDir": {"sizeLimit": limit}}
