"""The policy lint: one broken example for each rule, and what it says about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.kubernetes.overlays import OVERLAYS
from serving.kubernetes.policy import RULES, Finding, lint
from tests.k8s.breaking import DIGEST, HEAD, RAY, errors, head, site
from tests.k8s.checking import VARIANTS, one, rendered


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_rendered_breaks_no_rule(overlay: str, variant: str) -> None:
    assert errors(rendered(overlay, variant)) == []


def break_pod(field: str, value: Any) -> tuple[list[Finding], str]:
    manifests = site()
    spec = head(manifests)["spec"]
    if value is None:
        del spec[field]
    else:
        spec[field] = value
    return errors(manifests), f"{HEAD}.{field}"


def break_container(field: str, value: Any) -> tuple[list[Finding], str]:
    manifests = site()
    holder: Any = head(manifests)["spec"]["containers"][0]
    *parents, last = field.split(".")
    for part in parents:
        holder = holder[part]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return errors(manifests), f"{RAY}.{field}"


@pytest.mark.parametrize(
    ("rule", "field", "value", "problem"),
    [
        ("image", "image", "comptoir", "'comptoir' may change under you"),
        ("image", "image", "comptoir:latest", "'comptoir:latest' may change under you"),
        ("image", "image", "host.example:5000/comptoir", "may change under you"),
        ("image", "image", "", "no image"),
        ("privileges", "securityContext.privileged", True, "is privileged"),
        ("privileges", "securityContext.allowPrivilegeEscalation", True, "may gain privileges"),
        ("privileges", "securityContext.allowPrivilegeEscalation", None, "may gain privileges"),
        ("privileges", "securityContext.capabilities", {"drop": []}, "keeps capabilities"),
        ("privileges", "securityContext.capabilities.add", ["SYS_ADMIN"], "adds capabilities"),
        ("host", "ports", [{"containerPort": 1, "hostPort": 1}], "opens a port of the node"),
        ("resources", "resources.limits", None, "no cpu and no memory"),
        ("resources", "resources.requests", {"cpu": "1"}, "no memory"),
        ("user", "securityContext.runAsNonRoot", False, "may run as root"),
        ("user", "securityContext.runAsUser", 0, "runs as root"),
    ],
)
def test_a_container_that_breaks_a_rule(rule: str, field: str, value: Any, problem: str) -> None:
    (found, *more), path = break_container(field, value)
    assert more == []
    assert (found.rule, found.kind, found.name) == (rule, "RayService", "comptoir")
    assert problem in found.problem
    assert found.path.partition("[1]")[0].startswith(path.rpartition(".")[0][: len(RAY)])
    assert found.fix


@pytest.mark.parametrize(
    ("rule", "field", "value", "problem"),
    [
        ("host", "hostNetwork", True, "shares the node's namespace"),
        ("host", "hostPID", True, "shares the node's namespace"),
        ("host", "hostIPC", True, "shares the node's namespace"),
        ("token", "automountServiceAccountToken", None, "every container gets a token"),
        ("token", "automountServiceAccountToken", True, "every container gets a token"),
        ("region", "affinity", None, "may run anywhere"),
        ("user", "securityContext", {"runAsNonRoot": True}, "system calls are not filtered"),
        ("host", "volumes", [{"name": "a", "hostPath": {"path": "/"}}], "mounts a folder"),
        (
            "image",
            "volumes",
            [{"name": "a", "image": {"reference": "models:latest"}}],
            "may change under you",
        ),
        ("resources", "initContainers", "without resources", "no cpu and no memory"),
    ],
)
def test_a_pod_that_breaks_a_rule(rule: str, field: str, value: Any, problem: str) -> None:
    if value == "without resources":
        container = dict(head(site())["spec"]["containers"][0], resources={})
        value = [container]
    found, path = break_pod(field, value)
    assert {one.rule for one in found} == {rule}
    assert problem in found[0].problem
    assert found[0].path.startswith(path.partition(".affinity")[0].removesuffix(f".{field}"))


@pytest.mark.parametrize(
    ("field", "rule"), [("resources", "resources"), ("securityContext", "privileges")]
)
def test_the_container_that_the_operator_adds_is_looked_at_too(field: str, rule: str) -> None:
    manifests = site()
    del one(manifests, "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"][field]
    found = errors(manifests)
    assert rule in {one.rule for one in found}
    assert all(".autoscalerOptions" in one.path for one in found)


@pytest.mark.parametrize(
    "change",
    [
        {"policyTypes": ["Ingress"]},
        {"podSelector": {"matchLabels": {"a": "b"}}},
        {"egress": [{}]},
        {"ingress": [{"from": []}]},
    ],
    ids=str,
)
def test_a_policy_that_denies_less_than_everything_is_no_default(change: dict[str, Any]) -> None:
    manifests = site()
    one(manifests, "NetworkPolicy", "-default-deny")["spec"].update(change)
    (found,) = errors(manifests)
    assert (found.rule, found.kind) == ("default-deny", "RayService")


def test_a_policy_in_another_namespace_denies_nothing_here() -> None:
    manifests = site()
    one(manifests, "NetworkPolicy", "-default-deny")["metadata"]["namespace"] = "other"
    assert [one.rule for one in errors(manifests)] == ["default-deny"]


def test_an_account_that_mounts_its_token_is_found() -> None:
    manifests = site()
    del one(manifests, "ServiceAccount", "-worker")["automountServiceAccountToken"]
    (found,) = errors(manifests)
    assert (found.rule, found.kind, found.name) == ("token", "ServiceAccount", "comptoir-worker")


def test_other_kinds_of_pods_are_looked_at() -> None:
    template = {"spec": {"hostNetwork": True, "containers": [{"name": "a", "image": "a:1"}]}}
    for kind, spec in (
        ("Deployment", {"template": template}),
        ("CronJob", {"jobTemplate": {"spec": {"template": template}}}),
        ("Pod", template["spec"]),
        ("RayCluster", {"headGroupSpec": {"template": template}}),
    ):
        found = lint([{"kind": kind, "metadata": {"name": "a"}, "spec": spec}])
        assert {one.rule for one in found} == {*RULES, "default-deny"} - {"secret"}, kind


def test_a_missing_digest_and_a_writable_root_are_warnings() -> None:
    manifests = site()
    container = head(manifests)["spec"]["containers"][0]
    container["image"] = f"comptoir:1.0{DIGEST}"
    container["securityContext"]["readOnlyRootFilesystem"] = False
    warnings = [one for one in lint(manifests) if RAY in one.path]
    assert [(one.rule, one.level) for one in warnings] == [("user", "warning")]
    container["image"] = "comptoir:1.0"
    assert {one.rule for one in lint(manifests) if RAY in one.path} == {"user", "image"}


def test_a_finding_names_kind_name_path_and_the_remedy() -> None:
    manifests = site()
    head(manifests)["spec"]["hostPID"] = True
    (found,) = errors(manifests)
    assert str(found) == (
        f"RayService/comptoir: {HEAD}.hostPID: shares the node's namespace; remove it [host]"
    )


def test_manifests_are_not_changed() -> None:
    manifests = site()
    before = json.dumps(manifests)
    lint(manifests)
    assert json.dumps(manifests) == before
