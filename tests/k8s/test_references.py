"""Names and selectors that lead nowhere are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from serving.kubernetes.references import dangling
from tests.k8s.checking import Manifest, one, rendered


def head(manifests: list[Manifest]) -> Any:
    cluster = one(manifests, "RayService")["spec"]["rayClusterConfig"]
    return cluster["headGroupSpec"]["template"]["spec"]


def drop(kind: str, name: str = "") -> Callable[[list[Manifest]], None]:
    return lambda manifests: manifests.remove(one(manifests, kind, name))


def put(kind: str, name: str, path: str, value: Any) -> Callable[[list[Manifest]], None]:
    def change(manifests: list[Manifest]) -> None:
        holder: Any = one(manifests, kind, name)
        *parents, last = path.split(".")
        for part in parents:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        holder[int(last) if isinstance(holder, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop("ServiceAccount", "-head"), "there is no ServiceAccount 'comptoir-head'"),
        (drop("PriorityClass"), "there is no PriorityClass 'comptoir-serving'"),
        (drop("Role"), "there is no Role 'comptoir-autoscaler'"),
        (drop("Service"), "there is no Service 'comptoir-api'"),
        (lambda m: head(m)["volumes"].pop(0), "there is no volume 'tmp'"),
        (lambda m: head(m)["containers"][0]["volumeMounts"].pop(0), "nothing mounts 'tmp'"),
        (put("Service", "", "spec.selector", {"a": "b"}), "selects no pod"),
        (put("Service", "", "spec.ports.0.targetPort", "http"), "no port 'http' in"),
        (put("HTTPRoute", "", "spec.rules.0.backendRefs.0.port", 80), "has no port 80"),
        (put("PodMonitor", "", "spec.podMetricsEndpoints.0.port", "a"), "no port 'a' in"),
        (put("PodMonitor", "", "spec.selector.matchLabels", {"a": "b"}), "selects no pod"),
        (put("PodDisruptionBudget", "-cpu", "spec.selector.matchLabels", {}), "selects no pod"),
        (put("RoleBinding", "", "subjects.0.name", "x"), "there is no ServiceAccount 'x'"),
        (put("NetworkPolicy", "-clients", "spec.podSelector.matchLabels", {"a": "b"}), "no pod"),
        (
            put("NetworkPolicy", "-within", "spec.egress.0.to.0.podSelector.matchLabels.a", "b"),
            "selects no pod",
        ),
        (
            lambda m: head(m)["topologySpreadConstraints"][0].update(labelSelector={}),
            "does not select its own pods",
        ),
    ],
)
def test_what_leads_nowhere_is_found(
    change: Callable[[list[Manifest]], None], problem: str
) -> None:
    manifests = rendered("dev")
    assert dangling(manifests) == []
    change(manifests)
    assert any(problem in found for _, _, found in dangling(manifests)), dangling(manifests)


def test_during_an_incremental_upgrade_the_route_may_lead_to_kuberays_gateway() -> None:
    manifests = rendered("eu-multi-node")
    assert dangling(manifests) == []
    one(manifests, "RayService")["spec"]["upgradeStrategy"]["type"] = "NewCluster"
    found = [problem for _, _, problem in dangling(manifests)]
    assert "there is no Service 'comptoir-gateway-istio'" in found
    assert "selects no pod" in found
