"""Models over several GPUs: what Ray is asked, what is refused, what is advised; two workers on a CPU."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from serving.app import deployment_options
from serving.catalogue import tiny
from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.catalogue.gpus import get_gpu
from serving.catalogue.layouts import GpuLayout
from serving.catalogue.shapes import Shape, from_config, known_names, read_shape, shape_of
from serving.config.autoscaling import AutoscalingConfig
from serving.config.parallel import REFUSED_ARGS, Parallelism
from serving.engine import spread
from serving.engine.hosted import describe
from serving.engine.plan import EnginePlan, make_plan
from serving.errors import ConfigError
from serving.settings import ModelConfig
from tests.engine.conftest import Running


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def plan(entry: str, args: Mapping[str, Any] | None = None, **fields: Any) -> EnginePlan:
    fields = {"device": "gpu", "gpu": "h200", **fields}
    config = ModelConfig.from_args(
        {"id": "m", "catalogue": entry, "engine_args": dict(args or {}), **fields}
    )
    assert config.device != "auto"
    return make_plan(
        config, load_catalogue(), device=config.device, gpu=config.gpu, cache_dir=Path("cache")
    )


def refused(entry: str, args: Mapping[str, Any] | None = None, **fields: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        plan(entry, args, **fields)
    return raised.value


def advised(entry: str, args: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """What is advised, by the first word that names a key; and how urgently."""
    fields = {"device": "gpu", "gpu": "h200", **fields}
    made = plan(entry, args, **fields)
    config = ModelConfig.from_args({"id": "m", "catalogue": entry, **fields})
    spec = load_catalogue().get(entry)
    one = describe(config, spec, made.engine_args, device="gpu", gpu=fields["gpu"])
    return {each.text: each.level for each in spread.advice(one)}


def only(found: Mapping[str, str], word: str) -> tuple[str, str]:
    """The one piece of advice with this word, and its level."""
    texts = [text for text in found if word in text]
    assert len(texts) == 1, found
    return texts[0], found[texts[0]]


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
    for name in known_names():
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
def test_prefill_apart_from_decode_is_refused_with_what_to_do_instead(
    config: dict[str, Any],
) -> None:
    error = refused("deepseek-r1", {"kv_transfer_config": config})
    assert error.param == "engine_args.kv_transfer_config"
    assert "gateway takes it to one" in error.message
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
    text, level = only(advised(coder), "FP8 block")
    assert level == "warning"
    assert "320" in text
    assert not any("FP8 block" in one for one in advised(coder, {"enable_expert_parallel": True}))


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
        made.materialise()
    assert raised.value.param == "engine_args.max_lora_rank"
    plan("qwen3-8b", {"max_lora_rank": 64}, adapters=adapters).materialise()


def test_adapters_cannot_be_switched_off_while_they_are_named() -> None:
    error = refused("qwen3-8b", {"enable_lora": False}, adapters={"a": "/a"})
    assert error.param == "engine_args.enable_lora"


def test_more_adapters_at_once_than_in_memory_are_refused() -> None:
    error = refused("qwen3-8b", {"max_cpu_loras": 1}, adapters={"a": "/a", "b": "/b"})
    assert error.param == "engine_args.max_cpu_loras"


# ---- two workers on a CPU ------------------------------------------------------------------------------

TOKENS = 16
BODY = {
    "messages": [{"role": "user", "content": "Bonjour"}],
    "max_tokens": TOKENS,
    "temperature": 0,
    "ignore_eos": True,
}


# vLLM's CPU worker makes the buffer between two stages when it warms up a compiled model, and in eager mode
# it does not warm up: pipeline parallelism on a CPU needs the tracer, and fails at the first request without.
STAGES = {
    "engine_args": {
        "pipeline_parallel_size": 2,
        "enforce_eager": False,
        "compilation_config": {"mode": 2, "backend": "eager"},
    },
    "env": {"TORCH_COMPILE_DISABLE": "0"},
}


@pytest.fixture
async def spread_out(
    request: pytest.FixtureRequest,
    local_ray: None,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Running]:
    from serving.engine.replica import ModelReplica

    monkeypatch.setenv("COMPTOIR_REPLICA_HOST", "127.0.0.1")
    config = ModelConfig(id="m", catalogue="tiny-qwen3", drain_timeout_s=5, **request.param)
    made = make_plan(config, load_catalogue(), device="cpu", gpu=None, cache_dir=cache_dir)
    before = dict(os.environ)
    replica = ModelReplica.__new__(ModelReplica)
    await replica.__init__(made)  # type: ignore[misc]  # what Ray Serve does
    try:
        async with aiohttp.ClientSession() as session:
            yield Running(replica, await replica.record_replica_metadata(), session)
    finally:
        await replica.__del__()
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.engine
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "spread_out",
    [{"engine_args": {"tensor_parallel_size": 2}}, STAGES],
    indirect=True,
    ids=["tensor", "pipeline"],
)
async def test_two_workers_answer_as_one_engine(spread_out: Running) -> None:
    import psutil

    status, raw = await spread_out.post("/v1/chat/completions", dict(BODY))
    assert status == 200, raw
    assert orjson.loads(raw)["usage"]["completion_tokens"] == TOKENS
    names = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
    assert sum("VLLM::Worker" in name for name in names) == 2, names
    stats = await spread_out.replica.record_routing_stats()
    assert stats["generated_tokens"] >= TOKENS
