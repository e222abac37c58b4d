"""What is rendered: the deployment file as it is, in pods that are closed, placed and told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from serving.app import build_gateway
from serving.commands.k8s import load_document
from serving.commands.k8s_needs import model_needs
from serving.deployment_file import load_deployment_file
from serving.environment import cluster_environment
from serving.errors import ConfigError
from serving.kubernetes import serve_config
from serving.kubernetes.config import KubernetesConfig
from serving.kubernetes.overlays import OVERLAYS, RAY_VERSION, site_config
from serving.kubernetes.render import as_yaml, render
from serving.kubernetes.walk import Pod, at, pods
from tests.k8s.checking import ROOT, SETTINGS, SHIPPED, VARIANTS, Manifest, one, rendered

EVERYWHERE = [(overlay, variant) for overlay in OVERLAYS for variant in VARIANTS]


def service(overlay: str = "eu-multi-node", variant: str = "as shipped") -> Manifest:
    return one(rendered(overlay, variant), "RayService")


def groups(manifest: Manifest) -> dict[str, Manifest]:
    cluster = manifest["spec"]["rayClusterConfig"]
    return {"head": cluster["headGroupSpec"]} | {
        group["groupName"]: group for group in cluster["workerGroupSpecs"]
    }


def container(group: Manifest) -> Manifest:
    found: Manifest = group["template"]["spec"]["containers"][0]
    return found


def serve_of(manifest: Manifest) -> Any:
    return yaml.safe_load(manifest["spec"]["serveConfigV2"])


# ---- one source of truth -----------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_models_are_those_of_the_deployment_file(overlay: str) -> None:
    file = yaml.safe_load(SHIPPED[overlay].read_text(encoding="utf-8"))
    inside = serve_of(service(overlay))
    assert inside["applications"][1:] == file["applications"][1:]
    assert inside["logging_config"] == file["logging_config"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_of_the_gateway_only_its_place_and_its_keys_change(overlay: str) -> None:
    file = yaml.safe_load(SHIPPED[overlay].read_text(encoding="utf-8"))["applications"][0]
    inside = serve_of(service(overlay))["applications"][0]
    own = {"host": "0.0.0.0", "keys_file": "/etc/comptoir/keys/keys.yaml"}
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
    assert set(ServeDeploySchema.model_fields) == serve_config.SERVE_KEYS
    assert set(ServeApplicationSchema.model_fields) == serve_config.APPLICATION_KEYS


def test_the_cluster_runs_the_pinned_ray() -> None:
    pins = (ROOT / "requirements" / "gpu.txt").read_text(encoding="utf-8").split()
    assert f"ray=={RAY_VERSION}" in pins
    assert service()["spec"]["rayClusterConfig"]["rayVersion"] == RAY_VERSION


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
        ({"deployments": [{"name": "GatewayReplica"}]}, "deployments: is set for the cluster"),
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


# ---- pods --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overlay", "variant"), EVERYWHERE)
def test_every_pod_is_closed(overlay: str, variant: str) -> None:
    for pod in pods(service(overlay, variant)):
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        for path, one_container in (*pod.containers(), *pod.added):
            security = one_container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, path
            assert security["capabilities"] == {"drop": ["ALL"]}, path
            assert security["allowPrivilegeEscalation"] is False, path


def test_the_api_servers_token_is_in_the_autoscaler_alone() -> None:
    def holders(pod: Pod) -> set[str]:
        return {path for path, name in pod.mounts() if name == "api-token"}

    head, *workers = pods(service())
    assert [path.partition(".autoscalerOptions")[1] for path in holders(head)] == [
        ".autoscalerOptions"
    ]
    assert all(not holders(pod) for pod in workers)
    assert not [v for pod in workers for v in pod.spec["volumes"] if "projected" in v]


def test_the_head_runs_no_model_and_the_gateways_pods_neither() -> None:
    found = groups(service())
    assert found["head"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(found["head"])["resources"]["limits"]
    assert found["gateway"]["resources"] == {"CPU": "0", "comptoir_gateway": "4"}


def test_gateways_fill_their_pods_and_no_pod_is_without_one() -> None:
    found = groups(service("dev"))["gateway"]
    assert (found["replicas"], found["resources"]["comptoir_gateway"]) == (1, "1")


def test_gpu_pods_say_what_they_are_to_kubernetes_and_to_rays_autoscaler() -> None:
    group = groups(service())["gpu-h200"]
    spec = group["template"]["spec"]
    assert container(group)["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container(group)["resources"]["limits"] == container(group)["resources"]["requests"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert group["resources"] == {"accelerator_type:H200": "1"}
    assert group["maxReplicas"] == 2


def test_a_second_cluster_does_not_take_all_gpus_at_once() -> None:
    def first(overlay: str) -> set[tuple[int, int]]:
        found = groups(service(overlay))
        return {
            (group["minReplicas"], group["replicas"])
            for name, group in found.items()
            if name.startswith("gpu")
        }

    assert first("eu-multi-node") == {(0, 0)}
    assert first("eu-single-node") == {(1, 1)}


def test_the_autoscaler_of_the_pinned_ray_reads_the_groups() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    cluster = service()["spec"]["rayClusterConfig"]
    resource = {"metadata": {"name": "c", "namespace": "n"}, "spec": cluster}
    types = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    large = types["gpu-h200"]["resources"]
    assert (large["GPU"], large["CPU"], large["accelerator_type:H200"]) == (8, 96, 1)
    assert types["gateway"]["resources"]["CPU"] == 0
    assert types["gateway"]["resources"]["comptoir_gateway"] == 4
    assert types["headgroup"]["resources"]["CPU"] == 0


def test_pods_are_ready_when_clients_can_be_sent_to_them() -> None:
    found = groups(service())
    asked = {
        name: container(group)["readinessProbe"]["exec"]["command"][-1].split()[-1]
        for name, group in found.items()
    }
    assert asked["gateway"] == "http://localhost:8000/ready"
    # No gateway runs there, so they never are: KubeRay's Services route to every ready worker.
    assert asked["gpu-h200"] == "http://localhost:8000/-/healthz"
    assert asked["head"] == "http://localhost:52365/api/healthz"


def test_weights_may_load_for_an_hour_without_a_probe_that_minds() -> None:
    gpu = container(groups(service())["gpu-h200"])
    assert {"name": "RAYLLM_ENGINE_START_TIMEOUT_S", "value": "3600"} in gpu["env"]
    # Both ask Ray, which is up long before the engine.
    for probe in (gpu["startupProbe"], gpu["livenessProbe"]):
        assert probe["exec"]["command"][-1].endswith("/api/healthz")


def test_streams_end_before_a_pod_or_a_cluster_does() -> None:
    manifest = service()
    gateway = groups(manifest)["gateway"]["template"]["spec"]
    assert gateway["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "120"]
    assert gateway["terminationGracePeriodSeconds"] > 120
    assert manifest["spec"]["rayClusterDeletionDelaySeconds"] > 300
    assert groups(manifest)["gpu-h200"]["template"]["spec"]["terminationGracePeriodSeconds"] > 300


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_has_the_clusters_environment(overlay: str) -> None:
    for group in groups(service(overlay)).values():
        env = {one["name"]: one.get("value") for one in container(group)["env"]}
        assert env.items() >= cluster_environment().items()
        assert env["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("overlay", ["eu-single-node", "eu-multi-node"])
def test_pods_of_an_eu_overlay_stay_in_its_regions(overlay: str) -> None:
    for pod in pods(service(overlay)):
        required = at(
            pod.spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
        )
        (term,) = required["nodeSelectorTerms"]
        (expression,) = term["matchExpressions"]
        assert expression["key"] == "topology.kubernetes.io/region"
        assert expression["values"] == list(OVERLAYS[overlay]["regions"])


def test_an_eu_overlay_without_a_region_is_refused() -> None:
    with pytest.raises(ConfigError, match="regions: an EU overlay needs the regions"):
        site_config("eu-multi-node", {"regions": []})


# ---- weights, secrets, upgrades ----------------------------------------------------------------------


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
    found = groups(service("eu-multi-node", variant))
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
    cluster = service()["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "comptoir-ray-token"}
    password = cluster["gcsFaultToleranceOptions"]["redisPassword"]
    assert password == {
        "valueFrom": {"secretKeyRef": {"name": "comptoir-redis", "key": "password"}}
    }


def test_two_clusters_of_an_upgrade_do_not_share_their_state() -> None:
    options = service()["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert "externalStorageNamespace" not in options


def test_upgrades_are_incremental_where_there_is_room() -> None:
    kinds = {overlay: service(overlay)["spec"]["upgradeStrategy"]["type"] for overlay in OVERLAYS}
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
    for pod in list(pods(service()))[1:]:
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
        ({"upgrades": {}}, "upgrades: unknown key; known are: overlay, name"),
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
