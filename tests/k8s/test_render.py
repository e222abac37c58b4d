"""Weights, secrets, upgrades, networks, rights and settings of what is rendered."""

from __future__ import annotations

from typing import Any

import pytest

from serving.commands.k8s.needs import model_needs
from serving.deployment_file import load_deployment_file
from serving.errors import ConfigError
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.overlays import OVERLAYS, site_config
from serving.kubernetes.render import render
from serving.kubernetes.walk import at, pods
from tests.k8s.checking import (
    SETTINGS,
    SHIPPED,
    VARIANTS,
    container,
    groups,
    one,
    rayservice,
    rendered,
)

EVERYWHERE = [(overlay, variant) for overlay in OVERLAYS for variant in VARIANTS]


@pytest.mark.parametrize(
    ("variant", "field", "offline"),
    [
        ("as shipped", "persistentVolumeClaim", True),
        ("weights in an image", "image", True),
        ("weights in a bucket", "emptyDir", True),
        ("weights from the hub", "emptyDir", False),
    ],
)
def test_weights_come_from_where_the_site_keeps_them(
    variant: str, field: str, offline: bool
) -> None:
    found = groups(rayservice("eu-multi-node", variant))
    for name, group in found.items():
        volumes = {one["name"]: one for one in group["template"]["spec"]["volumes"]}
        if not name.startswith("gpu"):
            assert "weights" not in volumes
            continue
        assert field in volumes["weights"]
        mount = next(m for m in container(group)["volumeMounts"] if m["name"] == "weights")
        env = {one["name"]: one.get("value") for one in container(group)["env"]}
        assert mount.get("readOnly", False) is offline
        assert ("HF_HUB_OFFLINE" in env) is offline
        assert env["HF_HUB_CACHE"].startswith(mount["mountPath"])
        fetched = group["template"]["spec"].get("initContainers", [])
        assert bool(fetched) is (variant == "weights in a bucket")


@pytest.mark.parametrize(("overlay", "variant"), EVERYWHERE)
def test_only_the_hub_opens_the_way_out(overlay: str, variant: str) -> None:
    hub = variant == "weights from the hub" or (
        overlay == "dev" and variant != "weights in an image" and variant != "weights in a bucket"
    )
    open_to_all = [
        manifest["metadata"]["name"]
        for manifest in rendered(overlay, variant)
        if manifest["kind"] == "NetworkPolicy"
        for rule in manifest["spec"].get("egress", ())
        for peer in rule["to"]
        if at(peer, "ipBlock.cidr") == "0.0.0.0/0"
    ]
    assert bool(open_to_all) is hub


def test_secrets_are_named_and_not_rendered() -> None:
    manifests = rendered("eu-multi-node", "weights in a bucket")
    assert not [manifest for manifest in manifests if manifest["kind"] == "Secret"]
    cluster = rayservice()["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "comptoir-ray-token"}
    password = cluster["gcsFaultToleranceOptions"]["redisPassword"]
    assert password == {
        "valueFrom": {"secretKeyRef": {"name": "comptoir-redis", "key": "password"}}
    }


def test_two_clusters_of_an_upgrade_do_not_share_their_state() -> None:
    options = rayservice()["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert "externalStorageNamespace" not in options


def test_upgrades_are_incremental_where_there_is_room() -> None:
    kinds = {
        overlay: rayservice(overlay)["spec"]["upgradeStrategy"]["type"] for overlay in OVERLAYS
    }
    assert kinds == {
        "dev": "NewCluster",
        "eu-single-node": "None",
        "eu-multi-node": "NewClusterWithIncrementalUpgrade",
    }


def test_clients_go_through_kuberays_gateway_while_it_divides_them() -> None:
    route = one(rendered("eu-multi-node"), "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "comptoir-gateway-istio", "port": 80}]
    policy = one(rendered("eu-multi-node"), "NetworkPolicy", "-clients")
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"] == {
        "gateway.networking.k8s.io/gateway-name": "comptoir-gateway"
    }


def test_otherwise_they_go_to_the_gateways_own_port_through_tls() -> None:
    route = one(rendered("dev"), "HTTPRoute")
    assert route["spec"]["parentRefs"][0]["sectionName"] == "https"
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "comptoir-api", "port": 8000}]
    assert rule["timeouts"] == {"request": "3600s", "backendRequest": "3600s"}
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    target = one(rendered("dev"), "Service")["spec"]
    assert target["selector"]["app.kubernetes.io/component"] == "gateway"
    assert target["ports"][0]["targetPort"] == "serve"


def test_nothing_is_let_in_or_out_unless_a_policy_says_so() -> None:
    policies = {
        manifest["metadata"]["name"].removeprefix("comptoir-"): manifest["spec"]
        for manifest in rendered("eu-multi-node")
        if manifest["kind"] == "NetworkPolicy"
    }
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert set(policies) == {
        "default-deny",
        "within",
        "dns",
        "api-server",
        "operator",
        "clients",
        "metrics",
        "state",
        "upgrade-gateway",
    }
    (operator,) = policies["operator"]["ingress"]
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    # The dashboard, Ray's client port and the state store are nobody else's.
    opened = {
        port["port"]
        for name in ("operator", "clients", "metrics")
        for rule in policies[name]["ingress"]
        for port in rule["ports"]
    }
    assert opened == {8265, 8000, 8080}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_more_namespaces_may_call_the_gateways_when_the_site_says_so(overlay: str) -> None:
    file = load_deployment_file(SHIPPED[overlay], SETTINGS)
    settings = {"neighbours": {"clients": ["shop"]}}
    found = render(file, site_config(overlay, settings), model_needs(file, SETTINGS))
    (rule,) = one(found, "NetworkPolicy", "-clients")["spec"]["ingress"]
    names = [at(peer, "namespaceSelector.matchLabels") for peer in rule["from"]]
    assert {"kubernetes.io/metadata.name": "shop"} in names
    assert len(rule["from"]) == 2


def test_the_workers_account_has_no_rights() -> None:
    binding = one(rendered("eu-multi-node"), "RoleBinding")
    assert [subject["name"] for subject in binding["subjects"]] == ["comptoir-head"]
    for pod in list(pods(rayservice()))[1:]:
        assert pod.spec["serviceAccountName"] == "comptoir-worker"


def test_budgets_keep_a_gateway_and_every_model() -> None:
    found = {
        manifest["metadata"]["name"]: manifest["spec"]["minAvailable"]
        for manifest in rendered("eu-multi-node")
        if manifest["kind"] == "PodDisruptionBudget"
    }
    assert found == {"comptoir-gateway": 1, "comptoir-gpu-h200": 1, "comptoir-gpu-l40s": 1}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"images": {"cpu": "comptoir"}}, "images.cpu: 'comptoir' is not pinned"),
        ({"images": {"gpu": "a/b:latest"}}, "images.gpu: 'a/b:latest' is not pinned"),
        ({"images": {"gpu": "A B"}}, "images.gpu: 'A B' is not an image"),
        ({"name": "x" * 48}, "name: "),
        ({"gpus": {"b200": {}}}, "gpu 'b200' is unknown"),
        ({"weights": {"source": "s3"}}, "s3: is required"),
        ({"weights": {"source": "image"}}, "image: is required"),
        ({"redis": {"namespace": None}}, "namespace or cidrs"),
        ({"upgrade": {"step_percent": 60}}, "step_percent: must be at most surge_percent"),
        ({"upgrades": {}}, "upgrades: unknown key; known: overlay, name"),
        ({"overlay": "dev"}, "overlay: is given by --overlay"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        site_config("eu-multi-node", settings)
    assert complaint in caught.value.message


def test_a_digest_is_enough_of_a_pin_and_a_port_is_no_tag() -> None:
    digest = "host.example:5000/comptoir@sha256:" + "a" * 64
    config: KubernetesConfig = site_config(
        "dev", images=["cpu=host.example:5000/c:1.0", f"gpu={digest}"]
    )
    assert (config.images.cpu, config.images.gpu) == ("host.example:5000/c:1.0", digest)
    with pytest.raises(ConfigError, match="is not pinned"):
        site_config("dev", images=["host.example:5000/comptoir"])
