"""Rendered manifests are what the API server and KubeRay take, and a typo anywhere is found."""

from __future__ import annotations

import functools
import json
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import ConfigError
from serving.kubernetes import schemas, structural
from tests.k8s.checking import (
    CUSTOM,
    ROOT,
    SHIPPED,
    VARIANTS,
    custom_schema,
    one,
    problems,
    rendered,
    schema_problems,
    serve_config_problems,
)

CORE = {
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PriorityClass",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("overlay", SHIPPED)
def test_every_manifest_is_right(overlay: str, variant: str) -> None:
    assert problems(rendered(overlay, variant)) == []


FILES = sorted((ROOT / "deployments").glob("*.yaml"))
# They place things on machines by hand, which on Kubernetes is the renderer's work.
BARE_METAL = {"two-nodes.yaml"}


@pytest.mark.parametrize(
    "path", [one for one in FILES if one.name not in BARE_METAL], ids=lambda p: p.name
)
def test_every_deployment_file_can_be_rendered(path: Any) -> None:
    assert problems(rendered("eu-multi-node", path=path)) == []


@pytest.mark.parametrize("name", sorted(BARE_METAL))
def test_a_file_that_places_by_hand_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="deployments: is set for the cluster; remove it"):
        rendered("eu-multi-node", path=ROOT / "deployments" / name)


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_core_kinds_fit_the_oldest_and_the_newest_kubernetes(version: str) -> None:
    manifests = [one for one in rendered("eu-multi-node") if one["kind"] in CORE]
    assert {one["kind"] for one in manifests} == CORE
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


# Keywords of schemas that the validator reads, or may leave out.
KNOWN = {
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "nullable",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


def unknown_keywords(schema: Any) -> set[str]:
    """Keywords that this validator would ignore."""
    if not isinstance(schema, dict):
        return set()
    found = set(schema) - KNOWN
    for member in (schema.get("properties") or {}).values():
        found |= unknown_keywords(member)
    return (
        found
        | unknown_keywords(schema.get("items"))
        | unknown_keywords(schema.get("additionalProperties"))
    )


@pytest.mark.parametrize("kind", CUSTOM)
def test_no_keyword_of_the_schemas_is_ignored(kind: str) -> None:
    assert unknown_keywords(custom_schema(kind)) == set()


def test_defaults_are_filled_in_before_a_manifest_is_checked() -> None:
    group: dict[str, Any] = {"groupName": "a", "template": {"spec": {"containers": []}}}
    schema = custom_schema("RayService")
    service = one(rendered("dev"), "RayService")
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"] = [group]
    filled = structural.with_defaults(schema, service)
    stored = filled["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    assert (stored["minReplicas"], stored["maxReplicas"]) == (0, 2**31 - 1)
    assert "minReplicas" not in group


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"spec": {"excludeHeadPodFromServeSvc": "yes"}}, "is not of type boolean"),
        ({"spec": {"rayClusterDeletionDelaySeconds": -1}}, "is out of range"),
        ({"spec": {"rayClusterDeletionDelaySeconds": 2**40}}, "is too large"),
        ({"spec": {"serveConfigV2": None}}, "is null"),
        ({"spec": {"rayClusterConfig": {}}}, "headGroupSpec: is required"),
        ({"spec": {"rayClusterConfig": {"authOptions": {"mode": "tokens"}}}}, "is not one of"),
        ({"spec": {"managedBy": "me"}}, "not evaluated"),
        ({"spec": {"serveConfig": ""}}, "serveConfig: is unknown"),
        ({"metadata": {"name": ""}}, "0 characters"),
        ({"metadata": {"name": "a", "labels": {"a": 1}}}, "is not of type string"),
    ],
)
def test_what_is_wrong_with_a_custom_resource_is_said(
    change: dict[str, Any], complaint: str
) -> None:
    service = one(rendered("dev"), "RayService")
    for key, value in change.items():
        service[key] = {**service[key], **value}
    assert any(complaint in problem for problem in schema_problems(service))


@pytest.mark.parametrize(
    ("kind", "path", "value", "complaint"),
    [
        ("HTTPRoute", "apiVersion", "gateway.networking.k8s.io/v1beta1", "is not one of"),
        ("HTTPRoute", "spec.hostnames.0", "Llm_Example", "spec.hostnames[0]: 'Llm_Example' does"),
        ("HTTPRoute", "spec.hostname", "llm.example.eu", "spec.hostname: is unknown"),
        ("HTTPRoute", "spec.parentRefs.0.port", 70_000, "is out of range"),
        ("HTTPRoute", "spec.rules.0.matches.0.path.type", "Prefix", "is not one of"),
        ("HTTPRoute", "spec.rules.0.timeouts.request", "1 hour", "'1 hour' does not match"),
        ("HTTPRoute", "spec.rules.0.backendRefs.0.weight", -1, "is out of range"),
        ("HTTPRoute", "spec.rules.0.filters", [{"type": "URLRewrite", "x": 1}], "x: is unknown"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "15 s", "'15 s' does not match"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.portName", "a", "portName: is unknown"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.scheme", "ftp", "is not one of"),
        ("PodMonitor", "spec.podMetricsEndpoints", {}, "is not of type array"),
        ("PodMonitor", "spec.selector", None, "is null"),
        ("PrometheusRule", "spec.groups.0.name", "", "0 characters"),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "5 minutes", "does not match"),
        ("PrometheusRule", "spec.groups.0.rules.0.expression", "up", "expression: is unknown"),
        ("PrometheusRule", "spec.groups.0.rules.0.expr", [], "neither a number nor a text"),
    ],
)
def test_what_an_operator_would_refuse_is_said(
    kind: str, path: str, value: Any, complaint: str
) -> None:
    manifest = custom_manifest(kind)
    assert schema_problems(manifest) == []
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    mapping_at(manifest, tuple(parents))[last] = value  # type: ignore[index]
    assert any(complaint in problem for problem in schema_problems(manifest))


def custom_manifest(kind: str) -> dict[str, Any]:
    """One that we write, the caller's to change."""
    manifests = [*rendered("dev"), *monitoring()]
    found: dict[str, Any] = next(m for m in manifests if m["kind"] == kind)
    return found


def monitoring() -> list[dict[str, Any]]:
    """What `comptoir monitoring rules --kubernetes` writes."""
    found: list[dict[str, Any]] = []
    for path in sorted((ROOT / "k8s" / "monitoring").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            found += yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return found


def test_the_manifests_for_monitoring_fit_the_operators_schemas() -> None:
    manifests = monitoring()
    assert {"PodMonitor", "PrometheusRule"} <= {one["kind"] for one in manifests}
    assert [problem for one in manifests for problem in schema_problems(one)] == []


def test_every_file_of_schemas_is_read_and_explained() -> None:
    folder = ROOT / "serving" / "kubernetes" / "crds"
    text = (folder / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in folder.glob("*.json")}
    assert there == set(schemas.FILES.values())
    assert all(f"`{name}`" in text for name in there)


def test_quantities_and_members_of_lists_are_checked() -> None:
    service = one(rendered("dev"), "RayService")
    container = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"][
        "containers"
    ][0]
    container["resources"]["limits"]["memory"] = "16 gigabytes"
    container["ports"].append(dict(container["ports"][0]))
    found = schema_problems(service)
    assert any("16 gigabytes" in problem for problem in found)
    assert any("same containerPort" in problem for problem in found)


# ---- a typo anywhere ---------------------------------------------------------------------------------


@functools.cache
def places(overlay: str, variant: str) -> list[tuple[Any, ...]]:
    """The path of every mapping in the manifests: manifest's index, then keys and indices."""
    return paths(rendered(overlay, variant))


def paths(document: Any) -> list[tuple[Any, ...]]:
    """The path of every mapping in a document."""
    found: list[tuple[Any, ...]] = []

    def look(value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, dict):
            found.append(path)
            for key, member in value.items():
                look(member, (*path, key))
        elif isinstance(value, list):
            for index, member in enumerate(value):
                look(member, (*path, index))

    look(document, ())
    return found


def mapping_at(document: Any, path: tuple[Any, ...]) -> dict[str, Any]:
    return functools.reduce(lambda holder, part: holder[part], path, document)  # type: ignore[return-value, arg-type]


SITES = [("eu-multi-node", "as shipped"), ("dev", "weights in a bucket")]


@pytest.mark.parametrize(("overlay", "variant"), SITES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_key_too_many_is_found(overlay: str, variant: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(overlay, variant)))
    key = data.draw(st.from_regex(r"[a-z][A-Za-z]{3,12}", fullmatch=True))
    value = data.draw(st.sampled_from(["x", 1, True, {}, []]))
    manifests = rendered(overlay, variant)
    holder = mapping_at(manifests, path)
    if key in holder or (path[-1] == "metadata" and key in ("annotations", "namespace")):
        return
    holder[key] = value
    assert problems(manifests), (path, key)


@pytest.mark.parametrize(("overlay", "variant"), SITES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_misspelt_key_is_found(overlay: str, variant: str, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(overlay, variant)))
    manifests = rendered(overlay, variant)
    holder = mapping_at(manifests, path)
    if not holder:
        return
    key = data.draw(st.sampled_from(sorted(holder)))
    at = data.draw(st.integers(0, len(key) - 1))
    misspelt = key[:at] + key[at + 1 :] if data.draw(st.booleans()) else key[:at] + "x" + key[at:]
    if misspelt in holder:
        return
    holder[misspelt] = holder.pop(key)
    assert problems(manifests), (path, key, misspelt)


def test_every_single_misspelt_key_of_one_kind_is_found() -> None:
    """Exhaustively, where that is quick: all core kinds, the route and the monitor."""
    missed = []
    manifests = rendered("eu-multi-node")
    for path in places("eu-multi-node", "as shipped"):
        if manifests[path[0]]["kind"] == "RayService":
            continue
        for key in mapping_at(manifests, path):
            changed = [*manifests]
            changed[path[0]] = json.loads(json.dumps(manifests[path[0]]))
            holder = mapping_at(changed, path)
            holder[key + "x"] = holder.pop(key)
            # Most are found without looking at the others.
            if not schema_problems(changed[path[0]]) and not problems(changed):
                missed.append((*path, key))
    assert missed == []


def test_every_single_misspelt_key_of_the_serve_config_is_found() -> None:
    service = one(rendered("eu-multi-node"), "RayService")
    document = yaml.safe_load(service["spec"]["serveConfigV2"])
    missed = []
    for path in paths(document):
        # What engines take is for vLLM to say.
        if path[-1:] == ("engine_args",):
            continue
        for key in mapping_at(document, path):
            changed = json.loads(json.dumps(document))
            holder = mapping_at(changed, path)
            holder[key + "x"] = holder.pop(key)
            if not serve_config_problems(yaml.safe_dump(changed)):
                missed.append((*path, key))
    assert missed == []
