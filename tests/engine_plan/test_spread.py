"""What cannot be spread as asked is refused, each time with the key and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.config.parallel import REFUSED_ARGS
from tests.engine_plan.planned import plan, refused


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


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
