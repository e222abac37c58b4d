"""The Serve config inside is the deployment file, and the rest follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from serving.app import build_gateway
from serving.commands.k8s.document import load_document
from serving.commands.k8s.needs import model_needs
from serving.deployment_file import APPLICATION_KEYS, SERVE_KEYS, load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes import serve_config
from serving.kubernetes.overlays import OVERLAYS, RAY_VERSION, site_config
from serving.kubernetes.render import as_yaml, render
from tests.k8s.checking import (
    ROOT,
    SETTINGS,
    SHIPPED,
    container,
    groups,
    one,
    rayservice,
    rendered,
    serve_of,
)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_models_are_those_of_the_deployment_file(overlay: str) -> None:
    file = yaml.safe_load(SHIPPED[overlay].read_text(encoding="utf-8"))
    inside = serve_of(rayservice(overlay))
    assert inside["applications"][1:] == file["applications"][1:]
    assert inside["logging_config"] == file["logging_config"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_of_the_gateway_only_its_place_and_its_keys_change(overlay: str) -> None:
    file = yaml.safe_load(SHIPPED[overlay].read_text(encoding="utf-8"))["applications"][0]
    inside = serve_of(rayservice(overlay))["applications"][0]
    own: dict[str, Any] = {"host": "0.0.0.0", "keys_file": "/etc/comptoir/keys/keys.yaml"}
    if file["args"].get("replicas", 1) > 1:
        own["surge_percent"] = 0
    assert inside.pop("deployments")
    assert inside == {**file, "args": {**file["args"], **own}}


def test_the_same_input_gives_the_same_text() -> None:
    path = SHIPPED["eu-multi-node"]
    texts = set()
    for _ in range(2):
        file = load_deployment_file(path, SETTINGS)
        needs = model_needs(file, SETTINGS)
        texts.add(as_yaml(render(file, site_config("eu-multi-node"), needs)))
    (text,) = texts
    assert list(yaml.safe_load_all(text)) == rendered("eu-multi-node")
    assert "&id" not in text
    assert "  serveConfigV2: |\n" in text


def test_the_deployment_that_is_placed_is_the_gateways() -> None:
    application = build_gateway({})
    assert application._bound_deployment.name == serve_config.GATEWAY_DEPLOYMENT


def test_the_lists_of_serve_keys_are_rays() -> None:
    assert set(ServeDeploySchema.model_fields) == SERVE_KEYS
    assert set(ServeApplicationSchema.model_fields) == APPLICATION_KEYS


def test_the_cluster_runs_the_pinned_ray() -> None:
    pins = (ROOT / "requirements" / "gpu.txt").read_text(encoding="utf-8").split()
    assert f"ray=={RAY_VERSION}" in pins
    assert rayservice()["spec"]["rayClusterConfig"]["rayVersion"] == RAY_VERSION


def test_keys_that_the_file_names_are_mounted_where_it_says(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    document = yaml.safe_load(SHIPPED["dev"].read_text(encoding="utf-8"))
    document["applications"][0]["args"]["keys_file"] = "/etc/site/api-keys.yaml"
    file = load_document(document, SETTINGS, path)
    manifest = one(render(file, site_config("dev"), model_needs(file, SETTINGS)), "RayService")
    for group in groups(manifest).values():
        mounts = {m["name"]: m["mountPath"] for m in container(group)["volumeMounts"]}
        assert mounts["keys"] == "/etc/site"
        volume = next(v for v in group["template"]["spec"]["volumes"] if v["name"] == "keys")
        assert volume["secret"] == {"secretName": "comptoir-keys", "defaultMode": 0o440}


def test_another_file_of_keys_changes_no_pod(tmp_path: Path) -> None:
    clusters = []
    for name in ("keys-1.yaml", "keys-2.yaml"):
        document = yaml.safe_load(SHIPPED["dev"].read_text(encoding="utf-8"))
        document["applications"][0]["args"]["keys_file"] = f"/etc/comptoir/keys/{name}"
        file = load_document(document, SETTINGS, tmp_path / "site.yaml")
        found = one(render(file, site_config("dev"), model_needs(file, SETTINGS)), "RayService")
        assert name in found["spec"]["serveConfigV2"]
        clusters.append(found["spec"]["rayClusterConfig"])
    assert clusters[0] == clusters[1]


def test_keys_in_the_file_need_no_secret(tmp_path: Path) -> None:
    document = yaml.safe_load(SHIPPED["dev"].read_text(encoding="utf-8"))
    key = {"name": "acme", "hash": "sha256:" + "0" * 64}
    document["applications"][0]["args"]["keys"] = [key]
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    file = load_deployment_file(path, SETTINGS)
    manifest = one(render(file, site_config("dev"), model_needs(file, SETTINGS)), "RayService")
    assert "keys_file" not in serve_of(manifest)["applications"][0]["args"]
    assert all(m["name"] != "keys" for m in container(groups(manifest)["head"])["volumeMounts"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"proxy_location": "EveryNode"}, "proxy_location: must be Disabled"),
        ({"deployments": [{"name": "GatewayReplica", "num_replicas": 3}]}, "remove it .*num_rep"),
        ({"deployments": [{"name": "Gateway", "user_config": {}}]}, "is set for the cluster"),
        ({"keys_file": "keys.yaml"}, "keys_file: must be an absolute path"),
    ],
)
def test_what_only_the_cluster_can_decide_is_refused(
    change: dict[str, Any], complaint: str
) -> None:
    document = yaml.safe_load(SHIPPED["dev"].read_text(encoding="utf-8"))
    for key, value in change.items():
        gateway = document["applications"][0]
        holder = {"proxy_location": document, "deployments": gateway}.get(key, gateway["args"])
        holder[key] = value
    gateway_config = load_deployment_file(SHIPPED["dev"], SETTINGS).gateway
    with pytest.raises(ConfigError, match=complaint):
        serve_config.for_cluster(document, gateway_config)
