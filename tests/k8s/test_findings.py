"""`comptoir k8s lint` on manifests that are no such thing: a finding or a clear error, never a traceback."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from serving.commands.k8s.findings import findings
from tests.k8s.checking import one, rendered
from tests.k8s.test_command import k8s, refused

GATEWAY, MONITORING = "gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1"


@pytest.mark.parametrize(
    "manifest",
    [
        {"kind": "RayService", "metadata": 5, "spec": 5},
        {"kind": "RayService", "spec": {"rayClusterConfig": {"workerGroupSpecs": 5}}},
        {"kind": "RayService", "spec": {"rayClusterDeletionDelaySeconds": "soon"}},
        {"kind": "Pod", "spec": {"containers": [{"name": "a", "securityContext": 5}]}},
        {"kind": "Pod", "spec": {"containers": [], "volumes": 5}},
        {"kind": "Service", "spec": {"ports": [5]}},
        {"kind": "NetworkPolicy", "spec": 5},
        {"kind": "NetworkPolicy", "spec": {"ingress": [5]}},
        {"kind": "RoleBinding", "subjects": [1]},
    ],
)
def test_values_of_wrong_types_are_a_finding(manifest: dict[str, Any]) -> None:
    (found,) = findings([manifest], frozenset())
    assert (found.rule, found.kind, found.level) == ("schema", manifest["kind"], "error")
    assert "kubectl apply --dry-run=server" in str(found)


@pytest.mark.parametrize(
    ("manifest", "path"),
    [
        (
            {"kind": "HTTPRoute", "apiVersion": GATEWAY, "spec": {"rules": [5]}},
            "spec.rules[0]: is not of type object",
        ),
        (
            {"kind": "PodMonitor", "apiVersion": MONITORING, "spec": {"podMetricsEndpoints": [1]}},
            "spec.podMetricsEndpoints[0]: is not of type object",
        ),
    ],
)
def test_where_there_is_a_schema_the_place_is_named(manifest: dict[str, Any], path: str) -> None:
    found = findings([manifest], frozenset())
    assert any(path in str(each) for each in found)
    assert {each.rule for each in found} == {"schema"}


def test_one_misshapen_manifest_hides_nothing_of_the_others() -> None:
    manifests = rendered("eu-multi-node")
    one(manifests, "HTTPRoute")["spec"]["hostname"] = "llm.example.eu"
    bad = {"kind": "Service", "spec": {"ports": [5]}}
    text = [str(each) for each in findings([*manifests, bad], frozenset()) if each.level == "error"]
    assert len(text) == 2, text
    assert text[0].startswith("Service/None: spec: a list, a mapping or a number")
    assert text[1].startswith("HTTPRoute/comptoir-api: spec.hostname: is unknown")


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n"])
def test_no_manifests_are_not_right(text: str) -> None:
    assert refused(k8s("lint", "-", stdin=text)).message == "-: there are no manifests in it"


def test_a_field_that_the_api_server_would_drop_fails() -> None:
    manifests = rendered("eu-multi-node")
    one(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    result = k8s("lint", "-", stdin=yaml.safe_dump_all(manifests))
    assert result.exit_code == 1
    assert "spec.podMetricsEndpoints[0].intervall: is unknown" in result.stderr
