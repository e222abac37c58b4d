"""How a model is spread: what is refused and what is advised, each with the fix; adapters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.catalogue.gpus import get_gpu
from serving.catalogue.layouts import GpuLayout
from serving.catalogue.shapes import Shape
from serving.config.parallel import REFUSED_ARGS, Parallelism
from serving.engine import weights
from serving.engine_plan import spread
from serving.engine_plan.hosted import describe
from serving.errors import ConfigError
from serving.settings import ModelConfig
from tests.engine_plan.planned import advised, only, plan, refused


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


# ---- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", REFUSED_ARGS)
def test_what_ray_or_the_group_decides_cannot_be_set(key: str) -> None:
    assert refused("deepseek-r1", {key: 1}).param == f"engine_args.{key}"


@pytest.mark.parametrize(
    "config",
    [
        {"kv_connector": "NixlConnector", "kv_role": "kv_both"},
        {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_producer"},
        {
            "kv_connector": "MultiConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"connectors": [{"kv_connector": "NixlConnector"}]},
        },
    ],
)
def test_an_engine_that_hands_caches_over_by_hand_is_refused_with_what_to_do_instead(
    config: dict[str, Any],
) -> None:
    error = refused("deepseek-r1", {"kv_transfer_config": config})
    assert error.param == "engine_args.kv_transfer_config"
    assert "write `prefill` beside `engine_args`" in error.message
    assert "kv_offloading_size" in error.message


def test_caches_beyond_the_gpu_are_taken() -> None:
    offload = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}
    made = plan("deepseek-r1", {"kv_transfer_config": offload, "kv_offloading_size": 64})
    assert made.engine_args["kv_offloading_size"] == 64


@pytest.mark.parametrize(
    ("entry", "args", "key", "telling"),
    [
        ("deepseek-r1", {"tensor_parallel_size": 6}, "tensor_parallel_size", "1, 2, 4, 8, 16"),
        ("deepseek-r1", {"tensor_parallel_size": "8"}, "tensor_parallel_size", "whole number"),
        ("deepseek-r1", {"tensor_parallel_size": 0}, "tensor_parallel_size", "1 or more"),
        ("deepseek-r1", {"tensor_parallel_size": 4}, "tensor_parallel_size", "625 GiB"),
        ("qwen3-32b", {"pipeline_parallel_size": 65}, "pipeline_parallel_size", "64 layers"),
        ("qwen3-32b", {"enable_expert_parallel": True}, "enable_expert_parallel", "no experts"),
        ("qwen3-32b", {"data_parallel_size": 2}, "data_parallel_size", "`replicas`"),
        ("qwen3-32b", {"quantization": "awq"}, "quantization", "`source`"),
        ("qwen3-32b", {"max_lora_rank": 17}, "max_lora_rank", "16, 32"),
        (
            "deepseek-r1",
            {"prefill_context_parallel_size": 2},
            "prefill_context_parallel_size",
            "decode_context_parallel_size",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_key_and_the_fix(
    entry: str, args: dict[str, Any], key: str, telling: str
) -> None:
    error = refused(entry, args)
    assert error.param == f"engine_args.{key}"
    assert telling in error.message


def test_a_model_that_cannot_be_split_further_needs_whole_experts(catalogue: Catalogue) -> None:
    site = {"acknowledged_licences": [one.name for one in catalogue.licences.values()]}
    error = refused("minimax-m2", {"tensor_parallel_size": 8}, site=site)
    assert "enable_expert_parallel: true" in error.message
    args = {"tensor_parallel_size": 8, "enable_expert_parallel": True}
    assert plan("minimax-m2", args, site=site).gpus == 8


def test_weights_of_the_operators_own_are_not_weighed() -> None:
    assert plan("qwen3-235b-a22b-instruct-2507", {"tensor_parallel_size": 1}, source="/w").gpus == 1


def test_quantising_while_loading_halves_the_need() -> None:
    fields = {"gpu": "l40s", "layout": 5}
    one = {"tensor_parallel_size": 1}
    assert "61 GiB (bf16)" in refused("qwen3-32b", one, **fields).message
    assert plan("qwen3-32b", one | {"quantization": "fp8"}, **fields).gpus == 1


@pytest.mark.parametrize(
    ("args", "telling"),
    [
        ({"data_parallel_size": 2}, "all_gatherv"),
        ({"tensor_parallel_size": 2, "enable_expert_parallel": True}, "which experts"),
    ],
)
def test_what_vllm_cannot_share_on_a_cpu_is_refused(args: dict[str, Any], telling: str) -> None:
    assert telling in refused("tiny-qwen3-moe", args, device="cpu", gpu=None).message


def test_stages_on_a_cpu_that_would_fail_at_the_first_request_are_refused() -> None:
    error = refused("tiny-qwen3", {"pipeline_parallel_size": 2}, device="cpu", gpu=None)
    assert "first request" in error.message


# ---- what is advised -----------------------------------------------------------------------------------


def test_a_cache_that_is_kept_eight_times_is_pointed_out() -> None:
    text, level = only(advised("deepseek-r1"), "(MLA)")
    assert level == "hint"
    assert "data_parallel_size: 8" in text
    assert "enable_expert_parallel: true" in text
    assert not any(
        "(MLA)" in one for one in advised("deepseek-r1", {"decode_context_parallel_size": 8})
    )


def test_heads_that_are_kept_twice_are_pointed_out() -> None:
    text, level = only(
        advised("qwen3-235b-a22b-instruct-2507", {"tensor_parallel_size": 8}), "kept"
    )
    assert level == "hint"
    assert "4 heads" in text
    assert "kept 2 times" in text


def test_tensor_parallelism_over_nodes_is_warned_of_with_the_fix() -> None:
    text, level = only(advised("deepseek-r1", {"tensor_parallel_size": 16}), "over nodes")
    assert level == "warning"
    assert "tensor_parallel_size: 8 and pipeline_parallel_size: 2" in text
    assert not any(
        "over nodes" in one for one in advised("deepseek-r1", {"pipeline_parallel_size": 2})
    )


def test_stages_inside_a_node_are_pointed_out() -> None:
    args = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    text, _ = only(advised("deepseek-r1", args), "inside one node")
    assert "tensor_parallel_size 8" in text


def test_experts_that_blocks_cannot_be_cut_into_are_warned_of() -> None:
    coder = "qwen3-coder-480b-a35b-instruct"
    text, level = only(advised(coder, {"enable_expert_parallel": False}), "FP8 block")
    assert level == "warning"
    assert "320" in text
    assert not any("FP8 block" in one for one in advised(coder))


def test_no_layout_of_the_catalogue_cuts_experts_through_a_block(catalogue: Catalogue) -> None:
    """An entry says enable_expert_parallel where its published FP8 weights need it."""
    looked_at = 0
    for spec in catalogue.list():
        for number, layout in enumerate(spec.layouts):
            fields: dict[str, Any] = {"gpu": layout.gpu, "layout": number, "device": "gpu"}
            config = ModelConfig.from_args({"id": "m", "catalogue": spec.id, **fields})
            one = describe(config, spec, spec.engine_kwargs(layout), device="gpu", gpu=layout.gpu)
            looked_at += bool(one.shape and one.shape.fp8_block and one.quantisation == "fp8")
            found = [each.text for each in spread.advice(one) if "FP8 block" in each.text]
            assert found == [], (spec.id, number)
    assert looked_at >= 10


def test_tight_weights_are_warned_of_unless_someone_ran_them() -> None:
    spec = load_catalogue().get("qwen3-32b")
    small = dataclasses.replace(get_gpu("h100"), memory_gib=70)
    layout = GpuLayout(gpu="h100", quantisation="bf16")
    one = spread.Hosted("m", Parallelism(), {}, spec=spec, gpu=small, layout=layout)
    assert ["61 GiB of 70" in each.text for each in spread.advice(one)] == [True]
    ran = layout.model_copy(update={"source": "recipe"})
    assert spread.advice(dataclasses.replace(one, layout=ran)) == []


@pytest.mark.parametrize(
    ("args", "word", "level"),
    [
        ({"cpu_offload_gb": 10}, "kv_offloading_size", "warning"),
        ({"kv_offloading_size": 9, "enable_prefix_caching": False}, "read back", "warning"),
        ({"kv_offloading_size": 9, "kv_offloading_backend": "lmcache"}, "LMCache", "hint"),
        ({"tensor_parallel_size": 1, "enable_expert_parallel": True}, "does nothing", "warning"),
    ],
)
def test_what_disappoints_is_said(args: dict[str, Any], word: str, level: str) -> None:
    assert only(advised("qwen3-30b-a3b-instruct-2507", args), word)[1] == level


def test_formats_that_a_gpu_cannot_compute_in_are_pointed_out() -> None:
    one = spread.Hosted("m", Parallelism(), {"quantization": "mxfp4"}, Shape(1, 1, 1))
    assert spread.advice(one) == []
    spec = load_catalogue().get("qwen3-8b")
    found = advised(spec.id, {"quantization": "mxfp4"})
    assert only(found, "16 bits")[1] == "hint"


# ---- adapters ------------------------------------------------------------------------------------------


def write_rank(folder: Path, rank: int) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_bytes(orjson.dumps({"r": rank}))
    return folder


def test_an_adapter_larger_than_there_is_room_for_is_refused_with_the_size(tmp_path: Path) -> None:
    adapters = {"tuned": str(write_rank(tmp_path / "a", 48))}
    made = plan("qwen3-8b", adapters=adapters)
    with pytest.raises(ConfigError, match="max_lora_rank: 64") as raised:
        weights.prepare(made)
    assert raised.value.param == "engine_args.max_lora_rank"
    weights.prepare(plan("qwen3-8b", {"max_lora_rank": 64}, adapters=adapters))


def test_adapters_cannot_be_switched_off_while_they_are_named() -> None:
    error = refused("qwen3-8b", {"enable_lora": False}, adapters={"a": "/a"})
    assert error.param == "engine_args.enable_lora"


def test_more_adapters_at_once_than_in_memory_are_refused() -> None:
    error = refused("qwen3-8b", {"max_cpu_loras": 1}, adapters={"a": "/a", "b": "/b"})
    assert error.param == "engine_args.max_cpu_loras"
