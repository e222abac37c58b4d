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
from tests.k8s import structural
from tests.k8s.checking import (
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
    with pytest.raises(ConfigError, match="deployments: is set for the cluster; take it out"):
        rendered("eu-multi-node", path=ROOT / "deployments" / name)


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_core_kinds_fit_the_oldest_and_the_newest_kubernetes(version: str) -> None:
    manifests = [one for one in rendered("eu-multi-node") if one["kind"] in CORE]
    assert {one["kind"] for one in manifests} == CORE
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


@pytest.mark.parametrize("kind", ["RayService", "HTTPRoute", "PodMonitor"])
def test_no_keyword_of_the_schemas_is_ignored(kind: str) -> None:
    assert structural.unknown_keywords(custom_schema(kind)) == set()


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
