"""What KubeRay's own validation refuses is refused here, with the field's name."""

from __future__ import annotations

from typing import Any

import pytest

from serving.kubernetes.kuberay_rules import rayservice_problems
from tests.k8s.checking import one, rendered

HEAD = "spec.rayClusterConfig.headGroupSpec"
WORKER = "spec.rayClusterConfig.workerGroupSpecs.0"
ENV = f"{HEAD}.template.spec.containers.0.env"
OPTIONS = "spec.upgradeStrategy.clusterUpgradeOptions"
CLUSTER = "spec.rayClusterConfig"
GONE = object()


def changed(*changes: tuple[str, Any]) -> list[str]:
    manifest = one(rendered("eu-multi-node"), "RayService")
    for path, value in changes:
        *parents, last = path.split(".")
        holder: Any = manifest
        for part in parents:
            holder = holder[int(part)] if isinstance(holder, list) else holder.setdefault(part, {})
        if value is GONE:
            del holder[last]
        elif path == ENV:
            holder[last] = holder[last] + [value]
        else:
            holder[last] = value
    return rayservice_problems(manifest)


def test_what_is_rendered_is_taken() -> None:
    assert changed() == []


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("metadata.name", "a" * 48, "metadata.name: 48 characters; at most 47"),
        ("metadata.name", "1st", "metadata.name: must be"),
        ("metadata.name", "Upper", "metadata.name: must be"),
        ("metadata.annotations", {"ray.io/initializing-timeout": "soon"}, "initializing-timeout"),
        ("metadata.annotations", {"ray.io/initializing-timeout": "-5m"}, "initializing-timeout"),
        ("metadata.annotations", {"ray.io/initializing-timeout": "0"}, "initializing-timeout"),
        ("spec.upgradeStrategy.type", "Rolling", "upgradeStrategy.type: 'Rolling'"),
        ("spec.rayClusterDeletionDelaySeconds", -1, "rayClusterDeletionDelaySeconds"),
        (OPTIONS, None, "clusterUpgradeOptions: is required"),
        (f"{OPTIONS}.maxSurgePercent", 101, "maxSurgePercent: must be 0 to 100"),
        (f"{OPTIONS}.stepSizePercent", -1, "stepSizePercent: must be 0 to 100"),
        (f"{OPTIONS}.stepSizePercent", GONE, "stepSizePercent: must be 0 to 100"),
        (f"{OPTIONS}.stepSizePercent", 51, "stepSizePercent: must be at most maxSurgePercent"),
        (f"{OPTIONS}.intervalSeconds", 0, "intervalSeconds: must be above 0"),
        (f"{OPTIONS}.intervalSeconds", GONE, "intervalSeconds: must be above 0"),
        (f"{OPTIONS}.gatewayClassName", "", "gatewayClassName: is required"),
        (f"{CLUSTER}.enableInTreeAutoscaling", False, "needs enableInTreeAutoscaling"),
        (f"{CLUSTER}.authOptions.enableK8sTokenAuth", True, "is not supported for a RayService"),
        (f"{CLUSTER}.rayVersion", "2.51.0", "needs 2.52.0 or later"),
        (f"{CLUSTER}.rayVersion", GONE, "rayVersion: is needed"),
        (f"{CLUSTER}.rayVersion", "newest", "rayVersion: is needed"),
        (f"{HEAD}.headService.metadata.name", "mine", "headService.metadata.name: must not be set"),
        (f"{HEAD}.template.spec.containers", [], "headGroupSpec: needs at least one container"),
        (f"{WORKER}.template.spec.containers", [], "gateway: needs at least one container"),
        (f"{HEAD}.resources", {"CPU": "1"}, "not in both"),
        (f"{WORKER}.rayStartParams.num-cpus", "1", "not in both"),
        (f"{HEAD}.rayStartParams.labels", "a=b", "use `labels` of the group"),
        (f"{WORKER}.labels", {"a b": "c"}, "'a b' is not a label's key"),
        (f"{WORKER}.labels", {"a": "-"}, "'-' is not a label's value"),
        (f"{WORKER}.minReplicas", 9, "minReplicas: 9 is above maxReplicas 2"),
        (f"{WORKER}.minReplicas", -1, "minReplicas: must not be negative"),
        (f"{WORKER}.maxReplicas", -1, "maxReplicas: must not be negative"),
        (f"{WORKER}.suspend", True, "suspend: not together with autoscaling"),
        (f"{WORKER}.idleTimeoutSeconds", -1, "idleTimeoutSeconds: must not be negative"),
        (f"{WORKER}.template.spec.restartPolicy", "Always", "restartPolicy: must be Never"),
        (f"{HEAD}.template.spec.restartPolicy", "OnFailure", "restartPolicy: must be Never"),
        (f"{CLUSTER}.autoscalerOptions.idleTimeoutSeconds", -1, "must not be negative"),
        (
            f"{CLUSTER}.autoscalerOptions.env",
            [{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "x"}],
            "is the operator's own",
        ),
        (ENV, {"name": "RAY_enable_autoscaler_v2", "value": "1"}, "not together with"),
        (ENV, {"name": "REDIS_PASSWORD", "value": "x"}, "use gcsFaultToleranceOptions.redisPass"),
        (ENV, {"name": "RAY_REDIS_ADDRESS", "value": "x"}, "use gcsFaultToleranceOptions.redisAdd"),
        (ENV, {"name": "REDIS_USERNAME", "value": "x"}, "use gcsFaultToleranceOptions.redisUser"),
        (f"{HEAD}.rayStartParams.redis-password", "x", "use gcsFaultToleranceOptions.redisPass"),
        (f"{HEAD}.rayStartParams.redis-username", "x", "use gcsFaultToleranceOptions.redisUser"),
        ("metadata.annotations", {"ray.io/ft-enabled": "true"}, "ft-enabled: not together"),
        (
            "metadata.annotations",
            {"ray.io/external-storage-namespace": "x"},
            "use gcsFaultToleranceOptions.externalStorageNamespace",
        ),
        (f"{CLUSTER}.gcsFaultToleranceOptions.backend", "rocksdb", "needs the gate"),
        (f"{CLUSTER}.gcsFaultToleranceOptions.storage", {"size": "1Gi"}, "rocksdb only"),
        (f"{CLUSTER}.networkPolicy", {}, "feature gate RayClusterNetworkPolicy"),
        (f"{CLUSTER}.tlsOptions", {"enabled": True}, "feature gate RayClusterMTLS"),
        (f"{CLUSTER}.historyServerOptions", {}, "feature gate RayClusterHistoryServer"),
        (
            f"{CLUSTER}.upgradeStrategy",
            {"type": "Recreate"},
            "belongs to a RayCluster made by hand",
        ),
    ],
)
def test_what_the_operator_refuses_is_refused(path: str, value: Any, complaint: str) -> None:
    found = changed((path, value))
    assert any(complaint in problem for problem in found), found


@pytest.mark.parametrize("timeout", ["30m", "1h30m", "90", "1.5h"])
def test_a_timeout_may_be_a_duration_or_seconds(timeout: str) -> None:
    assert changed(("metadata.annotations", {"ray.io/initializing-timeout": timeout})) == []


def test_without_autoscaling_a_group_needs_both_bounds() -> None:
    found = changed((f"{CLUSTER}.enableInTreeAutoscaling", False), (f"{WORKER}.maxReplicas", GONE))
    assert any("both are needed without autoscaling" in problem for problem in found)


def test_without_version_2_of_the_autoscaler_some_fields_mean_nothing() -> None:
    found = changed(
        (f"{CLUSTER}.autoscalerOptions.version", "v1"),
        (f"{WORKER}.idleTimeoutSeconds", 60),
        (f"{WORKER}.priority", 1),
    )
    assert [problem.rpartition(": ")[2] for problem in found] == ["v2", "v2"]


def test_version_2_by_variable_needs_the_autoscaler() -> None:
    found = changed(
        (f"{CLUSTER}.enableInTreeAutoscaling", False),
        (ENV, {"name": "RAY_enable_autoscaler_v2", "value": "true"}),
    )
    assert any("needs enableInTreeAutoscaling" in problem for problem in found)


def test_an_address_of_redis_alone_does_not_switch_fault_tolerance_on() -> None:
    found = changed(
        (f"{CLUSTER}.gcsFaultToleranceOptions", GONE),
        (ENV, {"name": "RAY_REDIS_ADDRESS", "value": "x"}),
    )
    assert found == ["RAY_REDIS_ADDRESS of the head: use gcsFaultToleranceOptions.redisAddress"]


def test_tokens_of_kubernetes_exclude_a_secret_and_need_the_mode() -> None:
    both = changed((f"{CLUSTER}.authOptions.enableK8sTokenAuth", True))
    assert any("secretName: not together" in problem for problem in both)
    disabled = changed((f"{CLUSTER}.authOptions", {"mode": "disabled", "enableK8sTokenAuth": True}))
    assert any("needs mode: token" in problem for problem in disabled)
    old = changed(
        (f"{CLUSTER}.authOptions.enableK8sTokenAuth", True), (f"{CLUSTER}.rayVersion", "2.54.1")
    )
    assert any("needs 2.55.0 or later" in problem for problem in old)
