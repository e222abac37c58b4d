"""Pods are closed, placed, told apart, and ready when they should be."""

from __future__ import annotations

import pytest

from serving.environment import cluster_environment
from serving.errors import ConfigError
from serving.kubernetes.overlays import OVERLAYS, site_config
from serving.kubernetes.walk import Pod, at, pods
from tests.k8s.checking import (
    VARIANTS,
    container,
    groups,
    rayservice,
)

EVERYWHERE = [(overlay, variant) for overlay in OVERLAYS for variant in VARIANTS]


@pytest.mark.parametrize(("overlay", "variant"), EVERYWHERE)
def test_every_pod_is_closed(overlay: str, variant: str) -> None:
    for pod in pods(rayservice(overlay, variant)):
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

    head, *workers = pods(rayservice())
    assert [path.partition(".autoscalerOptions")[1] for path in holders(head)] == [
        ".autoscalerOptions"
    ]
    assert all(not holders(pod) for pod in workers)
    assert not [v for pod in workers for v in pod.spec["volumes"] if "projected" in v]


def test_the_head_runs_no_model_and_the_gateways_pods_neither() -> None:
    found = groups(rayservice())
    assert found["head"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(found["head"])["resources"]["limits"]
    assert found["gateway"]["resources"] == {"CPU": "0", "comptoir_gateway": "4"}


def test_gateways_fill_their_pods_and_no_pod_is_without_one() -> None:
    found = groups(rayservice("eu-single-node"))["gateway"]
    assert (found["replicas"], found["resources"]["comptoir_gateway"]) == (2, "2")


def test_the_only_gateway_has_room_for_the_one_that_follows_it() -> None:
    found = groups(rayservice("dev"))["gateway"]
    assert (found["replicas"], found["resources"]["comptoir_gateway"]) == (1, "2")


def test_gpu_pods_say_what_they_are_to_kubernetes_and_to_rays_autoscaler() -> None:
    group = groups(rayservice())["gpu-h200"]
    spec = group["template"]["spec"]
    assert container(group)["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container(group)["resources"]["limits"] == container(group)["resources"]["requests"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert group["resources"] == {"accelerator_type:H200": "1"}
    assert group["maxReplicas"] == 2


def test_a_second_cluster_does_not_take_all_gpus_at_once() -> None:
    def first(overlay: str) -> set[tuple[int, int]]:
        found = groups(rayservice(overlay))
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

    cluster = rayservice()["spec"]["rayClusterConfig"]
    resource = {"metadata": {"name": "c", "namespace": "n"}, "spec": cluster}
    types = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    large = types["gpu-h200"]["resources"]
    assert (large["GPU"], large["CPU"], large["accelerator_type:H200"]) == (8, 96, 1)
    assert types["gateway"]["resources"]["CPU"] == 0
    assert types["gateway"]["resources"]["comptoir_gateway"] == 4
    assert types["headgroup"]["resources"]["CPU"] == 0


def test_pods_are_ready_when_clients_can_be_sent_to_them() -> None:
    found = groups(rayservice())
    asked = {
        name: container(group)["readinessProbe"]["exec"]["command"][-1].split()[-1]
        for name, group in found.items()
    }
    assert asked["gateway"] == "http://localhost:8000/ready"
    # No gateway runs there, so they never are: KubeRay's Services route to every ready worker.
    assert asked["gpu-h200"] == "http://localhost:8000/-/healthz"
    assert asked["head"] == "http://localhost:52365/api/healthz"


def test_weights_may_load_for_an_hour_without_a_probe_that_minds() -> None:
    gpu = container(groups(rayservice())["gpu-h200"])
    assert {"name": "RAYLLM_ENGINE_START_TIMEOUT_S", "value": "3600"} in gpu["env"]
    # Both ask Ray, which is up long before the engine.
    for probe in (gpu["startupProbe"], gpu["livenessProbe"]):
        assert probe["exec"]["command"][-1].endswith("/api/healthz")


def test_streams_end_before_a_pod_or_a_cluster_does() -> None:
    manifest = rayservice()
    gateway = groups(manifest)["gateway"]["template"]["spec"]
    assert gateway["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "120"]
    assert gateway["terminationGracePeriodSeconds"] > 120
    assert manifest["spec"]["rayClusterDeletionDelaySeconds"] > 300
    assert groups(manifest)["gpu-h200"]["template"]["spec"]["terminationGracePeriodSeconds"] > 300


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_has_the_clusters_environment(overlay: str) -> None:
    for group in groups(rayservice(overlay)).values():
        env = {one["name"]: one.get("value") for one in container(group)["env"]}
        assert env.items() >= cluster_environment().items()
        assert env["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("overlay", ["eu-single-node", "eu-multi-node"])
def test_pods_of_an_eu_overlay_stay_in_its_regions(overlay: str) -> None:
    for pod in pods(rayservice(overlay)):
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
