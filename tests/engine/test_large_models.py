"""Models over several GPUs: what Ray is asked, what is refused, and what is advised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.app import deployment_options
from serving.catalogue import tiny
from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.catalogue.shapes import SHAPES, from_config, read_shape, shape_of
from serving.config.autoscaling import AutoscalingConfig
from serving.settings import ModelConfig
from tests.engine_plan.planned import plan, refused


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


# ---- GPUs and bundles ----------------------------------------------------------------------------------


def test_a_replica_over_two_nodes_takes_tensor_times_pipeline_gpus() -> None:
    made = plan("deepseek-r1", {"tensor_parallel_size": 8, "pipeline_parallel_size": 2})
    assert made.gpus == len(made.placement_bundles) == 16
    # vLLM puts one worker into each bundle, so a node's eight cannot be one bundle.
    assert {bundle["GPU"] for bundle in made.placement_bundles} == {1.0}
    assert made.placement_strategy == "PACK"
    assert made.parallel.words == "tp8 pp2"


def test_gpus_that_fit_in_a_node_stay_in_one() -> None:
    assert plan("deepseek-r1").placement_strategy == "STRICT_PACK"
    # Two nodes with four each can be right, and has to be said.
    assert plan("deepseek-r1", gpus_per_node=4).placement_strategy == "PACK"


def test_entries_that_span_nodes_do_so_by_stages(catalogue: Catalogue) -> None:
    for spec in catalogue:
        for layout in spec.layouts:
            assert layout.tensor_parallel <= 8, spec.id


GROUP = {"data_parallel_size": 8, "tensor_parallel_size": 1, "enable_expert_parallel": True}


def test_a_group_takes_the_gpus_of_all_its_ranks_and_asks_for_them_rank_by_rank() -> None:
    made = plan("deepseek-r1", GROUP)
    assert made.gpus == 8
    assert made.parallel.words == "tp1 dp8 ep"
    assert len(made.placement_bundles) == 1


def test_a_replica_of_the_file_is_a_gang_of_serves() -> None:
    made = plan("deepseek-r1", GROUP)
    config = ModelConfig(id="m", replicas=AutoscalingConfig(min=2, max=2))
    asked = deployment_options(config, made)
    assert asked["num_replicas"] == 16
    assert asked["gang_scheduling_config"].gang_size == 8
    # Serve refuses the two together.
    assert "placement_group_strategy" not in asked


def test_groups_are_not_scaled_automatically() -> None:
    error = refused("deepseek-r1", GROUP, replicas={"min": 1, "max": 2})
    assert error.param == "replicas"
    assert plan("deepseek-r1", GROUP, replicas={"min": 2, "max": 2}).gpus == 8


@pytest.mark.engine
@pytest.mark.parametrize(("tensor", "data"), [(1, 8), (2, 4), (8, 2)])
def test_ranks_are_placed_as_ray_llm_would_place_them(
    tensor: int, data: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.llm import LLMConfig

    from serving.engine.model_server import RankServer

    class Context:
        runtime_env: dict[str, Any] = {}  # noqa: RUF012

    monkeypatch.setattr("ray.get_runtime_context", Context)
    made = plan("deepseek-r1", GROUP | {"tensor_parallel_size": tensor, "data_parallel_size": data})
    theirs = RankServer.get_deployment_options(LLMConfig(**made.llm_config("vendor/big")))
    ours = deployment_options(ModelConfig(id="m"), made)
    assert made.placement_bundles == theirs["placement_group_bundles"]
    for key in ("num_replicas", "gang_scheduling_config"):
        assert ours[key] == theirs[key]
    assert ("placement_group_strategy" in ours) == ("placement_group_strategy" in theirs)


# ---- shapes --------------------------------------------------------------------------------------------


def test_every_shape_is_of_a_model_in_the_catalogue(catalogue: Catalogue) -> None:
    ids = [spec.id for spec in catalogue]
    for name in SHAPES:
        assert any(one == name or one.startswith(name.rstrip("*")) for one in ids), name
        assert name.endswith("*") or name in ids, name


def test_shapes_agree_with_what_the_catalogue_says_of_the_model(catalogue: Catalogue) -> None:
    for spec in catalogue:
        shape = shape_of(spec.id)
        if shape is None:
            continue
        assert bool(shape.experts) == spec.is_mixture, spec.id
        assert shape.shared_b <= spec.parameters_active_b, spec.id
        for layout in spec.layouts:
            assert shape.heads % layout.tensor_parallel == 0, spec.id


@pytest.mark.parametrize("family", tiny.families(), ids=lambda one: one.name)
def test_a_shape_is_read_from_the_configuration_of_each_architecture(
    family: tiny.TinyFamily, tmp_path: Path
) -> None:
    shape = from_config(family.config)
    assert shape is not None
    assert (shape.layers, shape.heads) == (2, 4)
    assert bool(shape.experts) == ("moe" in family.name or family.name in EXPERTS)
    assert shape.latent == (family.name in LATENT)
    (tmp_path / "config.json").write_bytes(orjson.dumps({"text_config": family.config}))
    assert read_shape(tmp_path) == shape


LATENT = ("deepseek-v3", "kimi-k2", "glm4-moe-lite")
EXPERTS = (*LATENT, "hy-v3")


def test_a_folder_without_a_configuration_has_no_shape(tmp_path: Path) -> None:
    assert read_shape(tmp_path) is None
    (tmp_path / "config.json").write_text("[]")
    assert read_shape(tmp_path) is None
    (tmp_path / "config.json").write_text("{")
    assert read_shape(tmp_path) is None


def test_the_folder_of_the_operator_says_it_better_than_the_table(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(
        orjson.dumps({"num_hidden_layers": 2, "num_attention_heads": 6})
    )
    assert plan("qwen3-32b", {"tensor_parallel_size": 6}, source=str(tmp_path)).gpus == 6
    assert "64 attention heads" in refused("qwen3-32b", {"tensor_parallel_size": 6}).message
