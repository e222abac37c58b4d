"""The RayService: head, gateways and one worker group per type of GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import yaml

from serving import api
from serving.kubernetes import names
from serving.kubernetes.config import GpuPool, KubernetesConfig
from serving.kubernetes.names import Manifest
from serving.kubernetes.needs import Group, ModelNeed
from serving.kubernetes.pods import (
    PodShape,
    answers_clients,
    container_security,
    pod_template,
    ray_is_up,
    resources,
)
from serving.kubernetes.serve_config import GATEWAY_RESOURCE, ClusterServe
from serving.kubernetes.storage import storage

# What NVIDIA's GPU feature discovery writes into nvidia.com/gpu.product.
GPU_PRODUCTS = {
    "l40s": "NVIDIA-L40S",
    "h100": "NVIDIA-H100-80GB-HBM3",
    "h200": "NVIDIA-H200",
}
_GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
# Requests do not pass through Ray's object store: what it reserves is shared memory lost.
_OBJECT_STORE_BYTES = str(512 * 2**20)
_MARGIN_S = 60


def rayservice(
    config: KubernetesConfig,
    serve: ClusterServe,
    groups: Sequence[Group],
    needs: Sequence[ModelNeed],
) -> Manifest:
    """The custom resource that KubeRay acts on."""
    # The operator keeps the old cluster so long after the last of its traffic is gone.
    drain_s = max([serve.drain_timeout_s, *(need.drain_timeout_s for need in needs)])
    drain_s = math.ceil(drain_s) + _MARGIN_S
    cluster: Manifest = {
        "rayVersion": config.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(config),
        "authOptions": {"mode": "token", "secretName": config.ray_token_secret},
    }
    if config.redis is not None:
        secret = {"name": config.redis.secret, "key": config.redis.key}
        # No externalStorageNamespace: by default each cluster has its own, also during an upgrade.
        cluster["gcsFaultToleranceOptions"] = {
            "redisAddress": config.redis.address,
            "redisPassword": {"valueFrom": {"secretKeyRef": secret}},
        }
    cluster["headGroupSpec"] = _head(config, serve)
    cluster["workerGroupSpecs"] = [
        _gateways(config, serve),
        *(_models(config, serve, group, drain_s) for group in groups),
    ]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": names.metadata(
            config.name, config.name, config.namespace, **{names.OVERLAY: config.overlay}
        ),
        "spec": {
            "upgradeStrategy": _upgrade(config),
            "rayClusterDeletionDelaySeconds": drain_s,
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": yaml.safe_dump(
                serve.document, sort_keys=False, allow_unicode=True, width=100
            ),
            "rayClusterConfig": cluster,
        },
    }


def gateway_pods(config: KubernetesConfig, serve: ClusterServe) -> int:
    """A pod without a gateway would never be ready."""
    return min(config.gateway_pods, serve.gateway_replicas)


def _upgrade(config: KubernetesConfig) -> Manifest:
    upgrade = config.upgrade
    if upgrade.strategy != "incremental":
        return {"type": {"new-cluster": "NewCluster", "none": "None"}[upgrade.strategy]}
    return {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": upgrade.gateway_class,
            "stepSizePercent": upgrade.step_percent,
            "maxSurgePercent": upgrade.surge_percent,
            "intervalSeconds": upgrade.interval_s,
        },
    }


def _autoscaler(config: KubernetesConfig) -> Manifest:
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": config.idle_timeout_s,
        "imagePullPolicy": "IfNotPresent",
        "resources": resources("500m", "1Gi"),
        "securityContext": container_security(),
        # The token of the API server is here and in no other container.
        "volumeMounts": [
            {"name": "autoscaler-tmp", "mountPath": "/tmp"},  # noqa: S108
            {
                "name": "api-token",
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                "readOnly": True,
            },
        ],
    }


def _head(config: KubernetesConfig, serve: ClusterServe) -> Manifest:
    token = {
        "name": "api-token",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                {
                    "configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }
                },
                {
                    "downwardAPI": {
                        "items": [
                            {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                        ]
                    }
                },
            ],
        },
    }
    shape = PodShape(
        component=names.HEAD,
        container="ray-head",
        image=config.images.cpu,
        account=names.head_account(config.name),
        resources=resources("4", "16Gi"),
        shm="1Gi",
        readiness=ray_is_up(),
        ports=(
            ("gcs-server", 6379),
            ("dashboard", names.DASHBOARD_PORT),
            ("client", 10001),
            ("metrics", names.METRICS_PORT),
            ("serve", serve.port),
        ),
        grace_s=30,
        volumes=(token, {"name": "autoscaler-tmp", "emptyDir": {"sizeLimit": "1Gi"}}),
    )
    return {
        "rayStartParams": {"num-cpus": "0", "object-store-memory": _OBJECT_STORE_BYTES},
        "template": pod_template(config, serve, shape),
    }


def _gateways(config: KubernetesConfig, serve: ClusterServe) -> Manifest:
    pods = gateway_pods(config, serve)
    each = math.ceil(serve.gateway_replicas / pods)
    # The only gateway of a site is replaced in its pod, by one that starts beside it.
    places = each + (serve.gateway_replicas == 1)
    pre_stop_s = math.ceil(serve.drain_timeout_s)
    shape = PodShape(
        component=names.GATEWAY,
        container="ray-worker",
        image=config.images.cpu,
        account=names.worker_account(config.name),
        resources=resources(str(each + 1), f"{each + 3}Gi"),
        shm="1Gi",
        readiness=answers_clients(serve.port, api.READY),
        ports=(("serve", serve.port), ("metrics", names.METRICS_PORT)),
        grace_s=pre_stop_s + _MARGIN_S,
        spread_over=(names.HOST, names.ZONE),
        pre_stop_s=pre_stop_s,
    )
    return {
        "groupName": names.GATEWAY,
        "replicas": pods,
        "minReplicas": pods,
        "maxReplicas": pods,
        # No CPU: models do not run here.
        "resources": {"CPU": "0", GATEWAY_RESOURCE: str(places)},
        "rayStartParams": {"object-store-memory": _OBJECT_STORE_BYTES},
        "template": pod_template(config, serve, shape),
    }


def _models(config: KubernetesConfig, serve: ClusterServe, group: Group, drain_s: int) -> Manifest:
    # A second cluster beside the first must not take all its GPUs at once: there the autoscaler starts
    # pods as Serve asks for them, from none.
    first = 0 if names.is_incremental(config) else group.pods_min
    spec: Manifest = {
        "groupName": group.name,
        "replicas": first,
        "minReplicas": first,
        "maxReplicas": group.pods_max,
    }
    if group.gpu is not None:
        # Ray finds the type on the node; the autoscaler must know it before there is one.
        spec["resources"] = {f"accelerator_type:{group.gpu.upper()}": "1"}
    shape = PodShape(
        component=group.name,
        container="ray-worker",
        account=names.worker_account(config.name),
        # No gateway is here, so this pod is never ready, and KubeRay's Services leave it out.
        readiness=answers_clients(serve.port, api.HEALTHZ),
        ports=(("metrics", names.METRICS_PORT),),
        grace_s=drain_s,
        storage=storage(config.weights, container_security()),
        annotations={"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        **_hardware(config, group),
    )
    spec["rayStartParams"] = {"object-store-memory": _OBJECT_STORE_BYTES}
    spec["template"] = pod_template(config, serve, shape)
    return spec


def _hardware(config: KubernetesConfig, group: Group) -> Manifest:
    """Image, resources and place, as fields of a `PodShape`."""
    if group.gpu is None:
        pool = config.cpu
        amounts = resources(str(pool.cpu), pool.memory)
        return {"image": config.images.cpu, "resources": amounts, "shm": pool.shm}
    kind = config.gpus.get(group.gpu, GpuPool())
    amounts = resources(
        str(kind.cpu_per_gpu * group.size),
        f"{kind.memory_gib_per_gpu * group.size}Gi",
        **{"nvidia.com/gpu": str(group.size)},
    )
    product = {"nvidia.com/gpu.product": GPU_PRODUCTS[group.gpu]}
    return {
        "image": config.images.gpu,
        "resources": amounts,
        "shm": f"{kind.shm_gib_per_gpu * group.size}Gi",
        "node_selector": kind.node_selector or product,
        "tolerations": (dict(_GPU_TAINT),),
    }
