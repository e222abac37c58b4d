"""The files in deployments/: each is right, fits the hardware it is for, and is what Ray Serve takes."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from ray import serve
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from serving.app import build_gateway, build_model, deployment_options
from serving.catalogue import tiny
from serving.catalogue.catalogue import load_catalogue
from serving.catalogue.fit import GPU_MEMORY_UTILISATION
from serving.catalogue.gpus import get_gpu
from serving.cli import app
from serving.commands.planning import plan_models
from serving.deployment_file import GATEWAY_BUILDER, MODEL_BUILDER, load_deployment_file
from serving.engine_plan.plan import EnginePlan
from serving.settings import ModelConfig, ProcessSettings

FOLDER = Path(__file__).parents[1] / "deployments"
FILES = sorted(FOLDER.glob("*.yaml"))
SETTINGS = ProcessSettings()
# What each file says that it needs.
HARDWARE: dict[str, tuple[int, str | None]] = {
    "local.yaml": (0, None),
    "laptop.yaml": (0, None),
    "one-gpu.yaml": (1, "H100"),
    "node-8xh200.yaml": (8, "H200"),
    "deepseek-data-parallel.yaml": (8, "H200"),
    "deepseek-v3-two-nodes.yaml": (16, "H100"),
    "deepseek-v3-prefill-decode.yaml": (16, "H200"),
    "kimi-k2.yaml": (8, "H200"),
}
# Its tokenizer has to be converted first: the one example that does not download what it needs.
CONVERTED = {"kimi-k2-thinking"}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


@functools.cache
def plans(path: Path) -> list[tuple[ModelConfig, EnginePlan]]:
    file = load_deployment_file(path, SETTINGS)
    return plan_models(file, SETTINGS)


def test_the_files_are_there() -> None:
    assert set(HARDWARE) <= {path.name for path in FILES}


@each_file
def test_the_command_says_that_it_is_right(path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 0, result.output


@each_file
def test_ray_serve_takes_it(path: Path) -> None:
    document = load_deployment_file(path, SETTINGS).document
    taken = ServeDeploySchema.model_validate(document)
    assert [one.name for one in taken.applications] == [
        one["name"] for one in document["applications"]
    ]
    # Serve's proxy would listen beside the gateway, without keys.
    assert taken.proxy_location == "Disabled"
    assert all(one.route_prefix is None for one in taken.applications)


@each_file
def test_every_application_can_be_built(path: Path) -> None:
    builders = {GATEWAY_BUILDER: build_gateway, MODEL_BUILDER: build_model}
    for one in load_deployment_file(path, SETTINGS).document["applications"]:
        assert isinstance(builders[one["import_path"]](one["args"]), serve.Application)


@each_file
def test_nobody_else_can_reach_it_as_it_is(path: Path) -> None:
    config = load_deployment_file(path, SETTINGS).gateway
    assert config.is_loopback or config.keys


@each_file
def test_it_is_for_the_european_union_and_names_what_it_acknowledges(path: Path) -> None:
    file = load_deployment_file(path, SETTINGS)
    assert {model.site for model in file.models} == {file.gateway.site}
    known = {licence.name for licence in load_catalogue().licences.values()}
    assert set(file.gateway.site.acknowledged_licences) <= known


@pytest.mark.parametrize("name", HARDWARE)
def test_it_needs_the_gpus_it_says(name: str) -> None:
    gpus, kind = HARDWARE[name]
    needed = 0
    for model, plan in plans(FOLDER / name):
        needed += plan.gpus * model.replicas.max
        assert plan.accelerator_type == kind
        rank = sum(bundle.get("GPU", 0) for bundle in plan.placement_bundles)
        assert rank * plan.parallel.data == plan.gpus
    assert needed == gpus
    first = (FOLDER / name).read_text().partition("\n")[0]
    assert (re.search(r"\b(?:8 x H200|16 x H100|One H100|CPU|random weights)\b", first)) is not None


@pytest.mark.parametrize("name", [name for name, (gpus, _) in HARDWARE.items() if gpus])
def test_weights_leave_a_third_of_the_memory_or_more_to_the_kv_cache(name: str) -> None:
    catalogue = load_catalogue()
    for model, plan in plans(FOLDER / name):
        spec = catalogue.get(model.entry)
        quantisation: Any = plan.engine_args.get("quantization")
        if quantisation is None:
            repositories = {spec.checkpoint(q).repo: q for q in spec.checkpoints}
            quantisation = repositories.get(plan.source, spec.native_dtype)
        memory = plan.gpus * get_gpu(str(model.gpu)).memory_gib * GPU_MEMORY_UTILISATION
        assert spec.weight_gib(quantisation) < memory * 2 / 3, model.id


def test_an_example_starts_on_anybodys_machine() -> None:
    for path in FILES:
        for model, plan in plans(path):
            if model.entry.startswith(tiny.ID_PREFIX) or model.id in CONVERTED:
                continue
            assert model.source is None
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", plan.source)


# ---- what Ray Serve is asked for ---------------------------------------------------------------------


def options(**fields: Any) -> dict[str, Any]:
    model, plan = plans(FOLDER / "node-8xh200.yaml")[0]
    changed = ModelConfig.from_args(model.model_dump() | fields)
    return deployment_options(changed, plan)


def test_a_replica_is_placed_with_all_its_gpus_together() -> None:
    asked = options()
    assert len(asked["placement_group_bundles"]) == 4
    assert asked["placement_group_strategy"] == "STRICT_PACK"
    assert asked["num_replicas"] == 1
    assert "autoscaling_config" not in asked


def test_a_model_may_sleep_from_the_start_and_says_what_it_is_all_the_same() -> None:
    asked = options(replicas={"min": 0, "max": 2})
    assert asked["autoscaling_config"].initial_replicas == 0
    card = asked["request_router_config"].request_router_kwargs["card"]
    assert card["task"] == "chat"
    assert "large" in card["aliases"]


def test_a_range_of_replicas_is_scaled() -> None:
    asked = options(replicas={"min": 1, "max": 3})
    assert "num_replicas" not in asked
    assert asked["autoscaling_config"].min_replicas == 1
    assert asked["autoscaling_config"].max_replicas == 3


def test_serve_waits_longer_than_the_drain() -> None:
    assert options()["graceful_shutdown_timeout_s"] > 300


def test_a_changed_model_starts_before_the_old_one_stops_unless_there_is_no_room() -> None:
    assert options(replicas={})["max_surge_percent"] > 0
    assert options(replicas={"surge_percent": 0})["max_surge_percent"] == 0


@pytest.mark.parametrize("name", [name for name, (gpus, _) in HARDWARE.items() if gpus])
def test_where_all_gpus_are_taken_a_changed_model_does_not_wait_for_more(name: str) -> None:
    for model, _ in plans(FOLDER / name):
        kinds = [model.replicas, *([model.prefill.replicas] if model.prefill else [])]
        assert {replicas.surge_percent for replicas in kinds} == {0}
