"""What KubeRay 1.7 itself refuses in a RayService although its schema allows it. Pure.

Ported from ray-operator/controllers/ray/utils/validation.go (Apache-2.0), with the feature gates
at the defaults of 1.7: NetworkPolicy, TLS, history server and embedded storage are off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

MAX_NAME = 47
MIN_RAY_FOR_TOKENS = (2, 52, 0)
MIN_RAY_FOR_KUBERNETES_TOKENS = (2, 55, 0)
UPGRADES = ("None", "NewCluster", "NewClusterWithIncrementalUpgrade")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"(?=.{1,253}/)[a-z0-9]([a-z0-9.-]*[a-z0-9])?/")
_GO_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")
_TIMEOUT = "ray.io/initializing-timeout"
_START_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
_AUTOSCALER_V2 = "RAY_enable_autoscaler_v2"
Rules = Iterator[str]


def rayservice_problems(manifest: Mapping[str, Any]) -> list[str]:
    """All problems for which the operator would refuse the manifest, in its order; empty without any."""
    spec = _map(manifest, "spec")
    cluster = _map(spec, "rayClusterConfig")
    metadata = _map(manifest, "metadata")
    return [
        *_metadata(metadata),
        *_cluster(cluster, _map(metadata, "annotations")),
        *_service(spec, cluster),
    ]


def _metadata(metadata: Mapping[str, Any]) -> Rules:
    name = str(metadata.get("name", ""))
    if len(name) > MAX_NAME:
        yield f"metadata.name: {len(name)} characters; at most {MAX_NAME}"
    if not _DNS_1035.fullmatch(name):
        yield "metadata.name: must be lower-case letters, digits and -, a letter first"
    timeout = str(_map(metadata, "annotations").get(_TIMEOUT, ""))
    if timeout and not _is_positive_duration(timeout):
        yield f"metadata.annotations[{_TIMEOUT}]: must be a duration such as 30m, or whole seconds"


def _service(spec: Mapping[str, Any], cluster: Mapping[str, Any]) -> Rules:
    if _map(cluster, "authOptions").get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth: is not supported for a RayService"
    head_service = _map(_map(cluster, "headGroupSpec"), "headService")
    if _map(head_service, "metadata").get("name"):
        yield "headGroupSpec.headService.metadata.name: must not be set"
    strategy = _map(spec, "upgradeStrategy").get("type")
    if strategy is not None and strategy not in UPGRADES:
        yield f"upgradeStrategy.type: {strategy!r}; must be one of {', '.join(UPGRADES)}"
    if int(spec.get("rayClusterDeletionDelaySeconds", 0)) < 0:
        yield "rayClusterDeletionDelaySeconds: must not be negative"
    if strategy == "NewClusterWithIncrementalUpgrade":
        yield from _incremental(_map(spec, "upgradeStrategy"), cluster)


def _incremental(strategy: Mapping[str, Any], cluster: Mapping[str, Any]) -> Rules:
    where = "upgradeStrategy.clusterUpgradeOptions"
    if not cluster.get("enableInTreeAutoscaling"):
        yield f"{where}: an incremental upgrade needs enableInTreeAutoscaling"
    options = strategy.get("clusterUpgradeOptions")
    if options is None:
        yield f"{where}: is required for an incremental upgrade"
        return
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent")
    if not 0 <= surge <= 100:
        yield f"{where}.maxSurgePercent: must be 0 to 100"
    if step is None or not 0 <= step <= 100:
        yield f"{where}.stepSizePercent: must be 0 to 100"
    elif step > surge:
        yield f"{where}.stepSizePercent: must be at most maxSurgePercent"
    interval = options.get("intervalSeconds")
    if interval is None or interval <= 0:
        yield f"{where}.intervalSeconds: must be above 0"
    if not options.get("gatewayClassName"):
        yield f"{where}.gatewayClassName: is required"


def _cluster(cluster: Mapping[str, Any], annotations: Mapping[str, Any]) -> Rules:
    head = _map(cluster, "headGroupSpec")
    workers = [group for group in cluster.get("workerGroupSpecs") or () if isinstance(group, dict)]
    for group in (head, *workers):
        if not _map(_map(group, "template"), "spec").get("containers"):
            yield f"{_group(group)}: needs at least one container"
            return
    scales = bool(cluster.get("enableInTreeAutoscaling"))
    yield from _group_rules(head)
    for group in workers:
        yield from _group_rules(group)
        yield from _sizes(group, scales)
        yield from _only_with_v2(group, cluster, scales)
    yield from _fault_tolerance(cluster, head, annotations)
    yield from _autoscaler(cluster, head, workers, scales)
    yield from _tokens(cluster)
    yield from _gates(cluster, workers)


def _group_rules(group: Mapping[str, Any]) -> Rules:
    parameters, where = _map(group, "rayStartParams"), _group(group)
    if group.get("resources") and any(parameters.get(name) for name in _START_RESOURCES):
        yield f"{where}: resources: set them there or in rayStartParams, not in both"
    if "labels" in parameters:
        yield f"{where}: rayStartParams.labels: use `labels` of the group"
    for key, value in _map(group, "labels").items():
        prefix, slash, name = str(key).rpartition("/")
        if not _LABEL_NAME.fullmatch(name) or (slash and not _LABEL_PREFIX.fullmatch(prefix + "/")):
            yield f"{where}: labels: {key!r} is not a label's key"
        if value != "" and not _LABEL_NAME.fullmatch(str(value)):
            yield f"{where}: labels.{key}: {value!r} is not a label's value"


def _sizes(group: Mapping[str, Any], scales: bool) -> Rules:
    low, high, where = group.get("minReplicas"), group.get("maxReplicas"), _group(group)
    if not scales and (low is None or high is None):
        yield f"{where}: minReplicas and maxReplicas: both are needed without autoscaling"
    for name, value in (("minReplicas", low), ("maxReplicas", high)):
        if value is not None and value < 0:
            yield f"{where}: {name}: must not be negative"
    if low is not None and high is not None and low > high:
        yield f"{where}: minReplicas: {low} is above maxReplicas {high}"


def _only_with_v2(group: Mapping[str, Any], cluster: Mapping[str, Any], scales: bool) -> Rules:
    idle, where = group.get("idleTimeoutSeconds"), _group(group)
    version_2 = scales and _map(cluster, "autoscalerOptions").get("version") == "v2"
    if idle is not None and idle < 0:
        yield f"{where}: idleTimeoutSeconds: must not be negative"
    if idle is not None and not version_2:
        yield f"{where}: idleTimeoutSeconds: needs autoscalerOptions.version: v2"
    if group.get("priority") and not version_2:
        yield f"{where}: priority: needs autoscalerOptions.version: v2"


def _fault_tolerance(
    cluster: Mapping[str, Any], head: Mapping[str, Any], annotations: Mapping[str, Any]
) -> Rules:
    options, variables = cluster.get("gcsFaultToleranceOptions"), _variables(head)
    parameters, where = _map(head, "rayStartParams"), "gcsFaultToleranceOptions"
    if parameters.get("redis-username") or "REDIS_USERNAME" in variables:
        yield f"the head's user for Redis: use {where}.redisUsername"
    if options is None:
        if annotations.get("ray.io/ft-enabled") != "true" and "RAY_REDIS_ADDRESS" in variables:
            yield f"RAY_REDIS_ADDRESS of the head: use {where}.redisAddress"
        return
    if annotations.get("ray.io/ft-enabled"):
        yield f"annotation ray.io/ft-enabled: not together with {where}"
    if parameters.get("redis-password"):
        yield f"rayStartParams.redis-password of the head: use {where}.redisPassword"
    for name, field in (("REDIS_PASSWORD", "redisPassword"), ("RAY_REDIS_ADDRESS", "redisAddress")):
        if name in variables:
            yield f"{name} of the head: use {where}.{field}"
    if annotations.get("ray.io/external-storage-namespace"):
        yield (
            f"annotation ray.io/external-storage-namespace: use {where}.externalStorageNamespace"
        )
    if options.get("backend") == "rocksdb":
        yield f"{where}.backend: rocksdb needs the gate GCSFaultToleranceEmbeddedStorage"
    elif options.get("storage") is not None:
        yield f"{where}.storage: is for the backend rocksdb only"


def _autoscaler(
    cluster: Mapping[str, Any],
    head: Mapping[str, Any],
    workers: Iterable[Mapping[str, Any]],
    scales: bool,
) -> Rules:
    options, variables = _map(cluster, "autoscalerOptions"), _variables(head)
    if not scales and variables.get(_AUTOSCALER_V2) in ("1", "true"):
        yield f"{_AUTOSCALER_V2} of the head: needs enableInTreeAutoscaling"
    if scales and options.get("version") is not None and _AUTOSCALER_V2 in variables:
        yield f"{_AUTOSCALER_V2} of the head: not together with autoscalerOptions.version"
    if scales and options.get("version") == "v2":
        for group in chain((head,), workers):
            policy = _map(_map(group, "template"), "spec").get("restartPolicy")
            if policy not in (None, "", "Never"):
                yield f"{_group(group)}: restartPolicy: must be Never or unset with autoscaler v2"
    if int(options.get("idleTimeoutSeconds", 0)) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds: must not be negative"
    if "KUBERAY_GEN_AUTOSCALER_START_CMD" in _named(options.get("env")):
        yield "autoscalerOptions.env: KUBERAY_GEN_AUTOSCALER_START_CMD is the operator's own"


def _tokens(cluster: Mapping[str, Any]) -> Rules:
    options = _map(cluster, "authOptions")
    by_kubernetes = options.get("enableK8sTokenAuth")
    if options.get("mode") != "token":
        if by_kubernetes:
            yield "authOptions.enableK8sTokenAuth: needs mode: token"
        return
    version = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", str(cluster.get("rayVersion", "")))
    if version is None:
        yield "rayVersion: is needed with authOptions.mode: token"
        return
    numbers = tuple(int(part or 0) for part in version.groups())
    if numbers < MIN_RAY_FOR_TOKENS:
        yield "rayVersion: authOptions.mode: token needs 2.52.0 or later"
    if by_kubernetes and numbers < MIN_RAY_FOR_KUBERNETES_TOKENS:
        yield "rayVersion: authOptions.enableK8sTokenAuth needs 2.55.0 or later"
    if by_kubernetes and options.get("secretName"):
        yield "authOptions.secretName: not together with enableK8sTokenAuth"


def _gates(cluster: Mapping[str, Any], workers: Iterable[Mapping[str, Any]]) -> Rules:
    for field, gate in (
        ("networkPolicy", "RayClusterNetworkPolicy"),
        ("tlsOptions", "RayClusterMTLS"),
        ("historyServerOptions", "RayClusterHistoryServer"),
    ):
        if cluster.get(field) is not None:
            yield f"{field}: needs the operator's feature gate {gate}"
    if _map(cluster, "upgradeStrategy").get("type") is not None:
        yield "rayClusterConfig.upgradeStrategy: belongs to a RayCluster made by hand"
    if cluster.get("enableInTreeAutoscaling"):
        for group in workers:
            if group.get("suspend"):
                yield f"{_group(group)}: suspend: not together with autoscaling"


def _is_positive_duration(text: str) -> bool:
    if _GO_DURATION.fullmatch(text):
        return not text.startswith("-") and bool(re.search(r"[1-9]", text))
    return text.removeprefix("+").isdecimal() and int(text) > 0


def _group(group: Mapping[str, Any]) -> str:
    return str(group.get("groupName", "headGroupSpec"))


def _variables(group: Mapping[str, Any]) -> dict[str, str]:
    containers = _map(_map(group, "template"), "spec").get("containers") or [{}]
    return _named(containers[0].get("env"))


def _named(env: Any) -> dict[str, str]:
    return {one["name"]: str(one.get("value", "")) for one in env or ()}


def _map(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}
