"""How a model runs: what the entry, the layout, the device and the configuration decide."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Literal

import pytest

from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.engine import weights
from serving.engine_plan.plan import EnginePlan
from serving.engine_plan.planner import GIB, make_plan
from serving.errors import CatalogueError, ConfigError, LicenceError
from serving.settings import ModelConfig


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def plan(
    catalogue: Catalogue,
    entry: str,
    *,
    device: Literal["cpu", "gpu"] = "gpu",
    gpu: str | None = "h200",
    **fields: Any,
) -> EnginePlan:
    config = ModelConfig.from_args({"id": "m", "catalogue": entry} | fields)
    return make_plan(config, catalogue, device=device, gpu=gpu, cache_dir=Path("cache"))


# ---- on GPUs -----------------------------------------------------------------------------------------


def test_a_layout_decides_gpus_quantisation_and_repository(catalogue: Catalogue) -> None:
    made = plan(catalogue, "glm-4.5-air", layout=1)
    assert made.source == "zai-org/GLM-4.5-Air-FP8"
    assert made.engine_args["tensor_parallel_size"] == 1
    assert made.gpus == 1


def test_the_layout_with_the_fewest_gpus_of_that_kind_is_taken(catalogue: Catalogue) -> None:
    assert plan(catalogue, "qwen3-235b-a22b-instruct-2507").gpus == 2
    assert plan(catalogue, "qwen3-235b-a22b-instruct-2507", gpu="h100").gpus == 4
    assert plan(catalogue, "qwen3-235b-a22b-instruct-2507", gpu="H100").accelerator_type == "H100"


def test_engine_args_win_over_the_layout(catalogue: Catalogue) -> None:
    args = {"tensor_parallel_size": 4, "max_model_len": 1000, "enable_prompt_tokens_details": False}
    made = plan(catalogue, "glm-4.5-air", engine_args=args)
    assert made.gpus == 4
    assert args.items() <= dict(made.engine_args).items()


def test_every_gpu_is_a_bundle_and_the_first_has_the_actor_too(catalogue: Catalogue) -> None:
    bundles = plan(catalogue, "qwen3-235b-a22b-instruct-2507").placement_bundles
    gpu = {"GPU": 1.0, "accelerator_type:H200": 0.001}
    assert bundles == [gpu | {"CPU": 1.0}, gpu]


def test_any_gpu_will_do_where_no_kind_is_known(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-8b", gpu=None)
    assert made.accelerator_type is None
    assert made.placement_bundles == [{"GPU": 1.0, "CPU": 1.0}]


def test_a_gpu_without_a_layout_is_refused_with_those_that_have_one(catalogue: Catalogue) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(catalogue, "qwen3-235b-a22b-instruct-2507", gpu="l40s")
    assert raised.value.param == "gpu"
    assert "h100, h200" in raised.value.message


def test_a_layout_that_does_not_exist_is_refused_with_their_number(catalogue: Catalogue) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(catalogue, "glm-4.5-air", layout=9)
    assert raised.value.param == "layout"
    assert "there are 4" in raised.value.message


def test_a_gpu_keeps_vllms_own_kv_cache_size_unless_told(catalogue: Catalogue) -> None:
    assert "kv_cache_memory_bytes" not in plan(catalogue, "qwen3-8b").engine_args
    told = plan(catalogue, "qwen3-8b", kv_cache_gib=20)
    assert told.engine_args["kv_cache_memory_bytes"] == 20 * GIB
    assert "enforce_eager" not in told.engine_args


def test_every_entry_that_may_start_has_a_plan_on_each_of_its_gpus(catalogue: Catalogue) -> None:
    names = [licence.name for licence in catalogue.licences.values()]
    planned = 0
    for spec in catalogue:
        if catalogue.licence_of(spec).excludes("EU") or spec.needs_remote_code:
            continue
        for number, layout in enumerate(spec.layouts):
            made = plan(
                catalogue,
                spec.id,
                gpu=layout.gpu,
                layout=number,
                site={"acknowledged_licences": names},
            )
            assert made.gpus == layout.gpus
            assert len(made.placement_bundles) == layout.gpus
            planned += 1
    assert planned > 100


# ---- on a CPU ----------------------------------------------------------------------------------------


def test_a_cpu_needs_no_layout_and_gets_a_fixed_kv_cache(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-0.6b", device="cpu", gpu="h200")
    assert made.gpus == 0
    assert made.accelerator_type is None
    assert made.placement_bundles == [{"CPU": 1.0}]
    assert made.engine_args["kv_cache_memory_bytes"] == 4 * GIB
    assert made.engine_args["enforce_eager"] is True
    assert made.env["CUDA_VISIBLE_DEVICES"] == ""


def test_the_configurations_variables_win(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-0.6b", device="cpu", env={"OMP_NUM_THREADS": "4"})
    assert made.env["OMP_NUM_THREADS"] == "4"
    assert made.env["VLLM_NO_USAGE_STATS"] == "1"


# ---- what always holds -------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("entry", ["qwen3-0.6b", "tiny-qwen3"])
def test_nothing_is_logged_phoned_home_or_run_from_a_repository(
    catalogue: Catalogue, entry: str, device: Literal["cpu", "gpu"]
) -> None:
    made = plan(catalogue, entry, device=device)
    assert made.engine_args["enable_log_requests"] is False
    assert "trust_remote_code" not in made.engine_args
    assert made.engine_args["load_format"] == "safetensors"
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"):
        assert made.env[name] == "1"


def test_a_revision_pins_weights_and_tokenizer(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-8b", revision="abc")
    assert made.engine_args["revision"] == made.engine_args["tokenizer_revision"] == "abc"
    assert made.card.revision == "abc"


def test_a_folder_is_loaded_without_the_hub_and_without_a_revision(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-8b", source="/models/qwen3", revision="abc")
    assert made.source == "/models/qwen3"
    assert weights.prepare(made) == "/models/qwen3"
    assert made.env["HF_HUB_OFFLINE"] == "1"
    assert "revision" not in made.engine_args


def test_parsers_come_from_the_entry(catalogue: Catalogue) -> None:
    made = plan(catalogue, "glm-4.5-air")
    assert made.engine_args["tool_call_parser"] == "glm45"
    assert made.engine_args["enable_auto_tool_choice"] is True
    assert made.engine_args["reasoning_parser"] == "glm45"
    assert "tool_call_parser" not in plan(catalogue, "qwen3-embedding-8b").engine_args


def test_the_card_says_what_a_client_may_know(catalogue: Catalogue) -> None:
    card = plan(catalogue, "glm-4.5-air", aliases=["air"]).card
    assert card.task == "chat"
    assert (card.vendor, card.vendor_jurisdiction) == ("Zhipu AI", "CN")
    assert card.licence == "MIT License"
    assert card.aliases == ("air",)
    assert card.entry == "glm-4.5-air"


def test_a_plan_travels_pickled(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-reranker-4b")
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - made a line above


def test_rays_config_gets_copies(catalogue: Catalogue) -> None:
    made = plan(catalogue, "qwen3-8b")
    config = made.llm_config("folder")
    config["engine_kwargs"]["changed"] = config["runtime_env"]["env_vars"]["changed"] = "1"
    assert "changed" not in made.engine_args
    assert "changed" not in made.env
    assert config["model_loading_config"] == {"model_id": "m", "model_source": "folder"}
    assert config["accelerator_type"] == "H200"
    assert config["log_engine_metrics"] is False


# ---- refusals ----------------------------------------------------------------------------------------


def test_a_forbidden_licence_is_refused_with_its_clause(catalogue: Catalogue) -> None:
    with pytest.raises(LicenceError, match="DOES NOT APPLY IN THE EUROPEAN UNION"):
        plan(catalogue, "hunyuan-7b-instruct")


def test_an_acknowledged_licence_passes_and_its_duties_are_on_the_card(
    catalogue: Catalogue,
) -> None:
    with pytest.raises(LicenceError) as raised:
        plan(catalogue, "minimax-m2.5")
    assert raised.value.param == "site.acknowledged_licences"
    name = catalogue.licence_of(catalogue.get("minimax-m2.5")).name
    made = plan(catalogue, "minimax-m2.5", site={"acknowledged_licences": [name]})
    assert made.card.notices


def test_an_unknown_entry_is_refused_with_near_names(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match=r"qwen3-32b"):
        plan(catalogue, "qwen3-33b")


def test_an_entry_that_needs_code_of_its_own_starts_from_a_converted_folder_only(
    catalogue: Catalogue,
) -> None:
    entry = "ling-mini-2.0"
    with pytest.raises(CatalogueError) as raised:
        plan(catalogue, entry)
    assert raised.value.param == "source"
    assert plan(catalogue, entry, source="/models/ling").source == "/models/ling"


# ---- tiny models -------------------------------------------------------------------------------------


def test_a_tiny_model_is_small_everywhere(catalogue: Catalogue) -> None:
    cpu = plan(catalogue, "tiny-qwen3", device="cpu")
    assert cpu.num_cpus < 1
    assert cpu.engine_args["kv_cache_memory_bytes"] == GIB // 4
    assert plan(catalogue, "tiny-qwen3").engine_args["gpu_memory_utilization"] < 0.5


def test_a_tiny_model_says_that_its_text_has_no_meaning(catalogue: Catalogue) -> None:
    card = plan(catalogue, "tiny-qwen3").card
    assert "no meaning" in card.notices[0]


def test_a_tiny_model_is_built_where_it_runs(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "serving.catalogue.tiny.build", lambda family, folder: asked.append(folder) or tmp_path
    )
    assert weights.prepare(plan(catalogue, "tiny-qwen3")) == str(tmp_path)
    assert asked == [Path("cache")]


def test_an_unknown_tiny_model_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(ConfigError, match="gpt"):
        plan(catalogue, "tiny-gpt")


def test_a_named_layout_decides_the_gpu(catalogue: Catalogue) -> None:
    spec = catalogue.get("qwen3-235b-a22b-instruct-2507")
    for number, layout in enumerate(spec.layouts):
        made = plan(catalogue, spec.id, gpu=None, layout=number)
        assert made.accelerator_type == layout.gpu.upper()
        assert made.gpus == layout.gpus


def test_adapters_are_loaded_with_the_engine(catalogue: Catalogue) -> None:
    made = plan(catalogue, "tiny-qwen3", device="cpu", adapters={"tuned": "/models/tuned"})
    assert made.engine_args["enable_lora"] is True
    assert made.engine_args["lora_modules"] == [{"name": "tuned", "path": "/models/tuned"}]
    assert made.card.adapters == ("tuned",)
    assert "enable_lora" not in plan(catalogue, "tiny-qwen3", device="cpu").engine_args


@pytest.mark.parametrize("key", ["enable_log_requests", "log_error_stack", "lora_modules"])
def test_what_would_log_prompts_cannot_be_switched_on(catalogue: Catalogue, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        plan(catalogue, "tiny-qwen3", device="cpu", engine_args={key: True})
