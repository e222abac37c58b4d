"""What works and wastes is said, each time with what would be better."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.catalogue.gpus import get_gpu
from serving.catalogue.layouts import GpuLayout
from serving.catalogue.shapes import Shape
from serving.config.parallel import Parallelism
from serving.engine_plan.advice import advice
from serving.engine_plan.hosted import Hosted, describe
from serving.settings import ModelConfig
from tests.engine_plan.planned import advised, only


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


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
            found = [each.text for each in advice(one) if "FP8 block" in each.text]
            assert found == [], (spec.id, number)
    assert looked_at >= 10


def test_tight_weights_are_warned_of_unless_someone_ran_them() -> None:
    spec = load_catalogue().get("qwen3-32b")
    small = dataclasses.replace(get_gpu("h100"), memory_gib=70)
    layout = GpuLayout(gpu="h100", quantisation="bf16")
    one = Hosted("m", Parallelism(), {}, spec=spec, gpu=small, layout=layout)
    assert ["61 GiB of 70" in each.text for each in advice(one)] == [True]
    ran = layout.model_copy(update={"source": "recipe"})
    assert advice(dataclasses.replace(one, layout=ran)) == []


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
    one = Hosted("m", Parallelism(), {"quantization": "mxfp4"}, Shape(1, 1, 1))
    assert advice(one) == []
    spec = load_catalogue().get("qwen3-8b")
    found = advised(spec.id, {"quantization": "mxfp4"})
    assert only(found, "16 bits")[1] == "hint"
