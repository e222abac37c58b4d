"""Engine arguments against the installed vLLM: names at once, values and combinations by vLLM itself."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from serving.catalogue.shapes import shape_of
from serving.engine_plan import arguments
from serving.engine_plan.arguments import Finding, Question, check_names, known_arguments
from serving.errors import ComptoirError, ConfigError

GIB = 2**30


# ---- names, without importing vLLM ---------------------------------------------------------------------


def test_the_names_are_read_without_importing_vllm() -> None:
    program = (
        "import sys; from serving.engine_plan.arguments import known_arguments;"
        "assert 'tensor_parallel_size' in known_arguments();"
        "assert 'tool_call_parser' in known_arguments();"
        "assert 'vllm' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("tensor_parallel", "tensor_parallel_size"),
        ("max-model-len", "max_model_len"),
        ("kv_offload_size", "kv_offloading_size"),
        ("enable_expert_parallelism", "enable_expert_parallel"),
        ("max_lora_ranks", "max_lora_rank"),
    ],
)
def test_an_unknown_name_is_refused_with_the_one_that_was_meant(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_names({"max_num_seqs": 8, wrong: 1})
    assert raised.value.param == f"engine_args.{wrong}"
    assert right in raised.value.message


def test_a_name_like_no_other_is_to_be_taken_out() -> None:
    with pytest.raises(ConfigError, match="remove it"):
        check_names({"zzzzqqqq": 1})


def test_without_vllm_every_name_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    known_arguments.cache_clear()
    try:
        check_names({"anything": 1})
        assert not arguments.is_installed()
    finally:
        known_arguments.cache_clear()


def test_a_probe_that_fails_says_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "PROBE", "serving.no_such_module")
    with pytest.raises(ComptoirError, match="no_such_module"):
        arguments.ask([])


# ---- values and combinations, by vLLM ------------------------------------------------------------------


def tiny(name: str, family: str = "qwen3", **args: Any) -> Question:
    return Question(name, "cpu", None, args, tiny=family)


def large(name: str, **args: Any) -> Question:
    shape = shape_of("deepseek-v3")
    assert shape is not None
    return Question(
        name,
        "gpu",
        "DeepseekV3ForCausalLM",
        args,
        context_tokens=163840,
        shape=dataclasses.asdict(shape),
    )


RIGHT = [
    tiny("a whole number where a fraction may stand", gpu_memory_utilization=1),
    tiny("a list for a set", cpu_offload_params=["experts"]),
    tiny("cache beside the GPU", kv_offloading_size=2.0),
    tiny("two GPUs", tensor_parallel_size=2, pipeline_parallel_size=2),
    tiny("adapters", enable_lora=True, max_loras=2, max_lora_rank=64),
    large("two nodes", tensor_parallel_size=8, pipeline_parallel_size=2),
    large("a group", data_parallel_size=8, enable_expert_parallel=True),
    large("cut by tokens", tensor_parallel_size=8, decode_context_parallel_size=8),
    large("quantised", tensor_parallel_size=8, quantization="fp8", kv_cache_dtype="fp8"),
    large(
        "drafts",
        tensor_parallel_size=8,
        speculative_config={"method": "mtp", "num_speculative_tokens": 1},
    ),
    # Only CUDA has it, and this machine need not.
    large("balanced", tensor_parallel_size=8, enable_expert_parallel=True, enable_eplb=True),
]
WRONG: list[tuple[Question, str, str]] = [
    (tiny("text", max_model_len="8192"), "max_model_len", "valid integer"),
    (tiny("yes", enable_prefix_caching="yes"), "enable_prefix_caching", "valid boolean"),
    (tiny("dtype", kv_cache_dtype="fp9"), "kv_cache_dtype", "'fp8'"),
    (tiny("parser", tool_call_parser="nope"), "tool_call_parser", "hermes"),
    (tiny("rank", enable_lora=True, max_lora_rank=17), "max_lora_rank", "16"),
    (tiny("nested", compilation_config={"nope": 1}), "compilation_config", "Unexpected"),
    (tiny("share", gpu_memory_utilization=1.5), "gpu_memory_utilization", "less than or equal"),
    (tiny("context", max_model_len=100_000), "max_model_len", "greater than the derived"),
    (tiny("heads", tensor_parallel_size=3), "tensor_parallel_size", "divisible"),
    (tiny("dense", enable_expert_parallel=True), "enable_expert_parallel", "experts"),
    (large("128 heads", tensor_parallel_size=6), "tensor_parallel_size", "(128)"),
    (large("method", quantization="nope"), "quantization", "Unknown quantization"),
    (
        tiny("memory", enable_lora=True, max_loras=4, max_cpu_loras=2),
        "max_cpu_loras",
        "must be >= max_loras",
    ),
]


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    # One process for all: importing vLLM is what takes the time.
    questions = [*RIGHT, *(question for question, _, _ in WRONG)]
    return {one.model_id: one for one in arguments.ask(questions)}


@pytest.mark.engine
@pytest.mark.parametrize("question", RIGHT, ids=lambda one: one.model_id)
def test_vllm_takes_what_is_right(question: Question, findings: dict[str, Finding]) -> None:
    found = findings[question.model_id]
    assert found.problem is None
    # It looked at the whole configuration, but for what only a GPU can say.
    assert found.depth == "config" or question.model_id == "balanced"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("question", "key", "telling"), WRONG, ids=[question.model_id for question, _, _ in WRONG]
)
def test_vllm_refuses_what_is_wrong_and_the_key_is_named(
    question: Question, key: str, telling: str, findings: dict[str, Finding]
) -> None:
    found = findings[question.model_id]
    assert found.problem is not None
    assert telling in found.problem
    assert found.key == key


@pytest.mark.engine
def test_the_names_are_the_fields_that_vllm_has() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    fields = {
        one.name for cls in (AsyncEngineArgs, FrontendArgs) for one in dataclasses.fields(cls)
    }
    assert known_arguments() == {name for name in fields if not name.startswith("_")}
