"""Whether a model can be spread as asked, and whether it should be: refusals and advice. Pure.

Refusals are what vLLM would find after minutes of loading, or never; advice is what works and wastes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.catalogue.gpus import Gpu
from serving.catalogue.layouts import GpuLayout, Quantisation
from serving.catalogue.shapes import Shape
from serving.catalogue.spec import WEIGHT_HEADROOM, ModelSpec
from serving.config.parallel import Parallelism
from serving.errors import ConfigError

# What vLLM can make of bf16 weights while it loads them, and what they weigh then.
ONLINE_QUANTISATIONS: Mapping[str, Quantisation] = {
    "fp8": "fp8",
    "fp8_per_tensor": "fp8",
    "fp8_per_block": "fp8",
    "fp8_per_channel": "fp8",
    "mxfp8": "mxfp8",
    "experts_int8": "int8",
    "int8_per_channel_weight_only": "int8",
    "nvfp4_per_token": "nvfp4",
    "mxfp4": "mxfp4",
}
# Formats of checkpoints: naming one does not make one.
_CHECKPOINT_FORMATS = frozenset(
    {
        "auto_awq",
        "auto_gptq",
        "awq",
        "awq_marlin",
        "compressed-tensors",
        "gptq",
        "gptq_marlin",
        "modelopt",
        "modelopt_fp4",
        "modelopt_mixed",
        "modelopt_mxfp8",
        "moe_wna16",
        "quark",
    }
)
_VLLM_MEMORY_SHARE = 0.92


@dataclass(frozen=True)
class Hosted:
    """One model as it would run: what the rules look at."""

    model_id: str
    parallel: Parallelism
    args: Mapping[str, Any]
    shape: Shape | None = None
    spec: ModelSpec | None = None
    layout: GpuLayout | None = None
    gpu: Gpu | None = None
    gpus_per_node: int = 8
    # The weights are a folder of the operator's: what is in it is not known here.
    own_weights: bool = False

    @property
    def quantisation(self) -> Quantisation | None:
        """How the weights are loaded; None where nothing is known of them."""
        if self.spec is None:
            return None
        published = self.layout.quantisation if self.layout else self.spec.native_dtype
        named = self.args.get("quantization")
        if published == "bf16" and isinstance(named, str):
            return ONLINE_QUANTISATIONS.get(named, published)
        return published

    @property
    def needed_gib(self) -> float | None:
        """Weights on the GPUs of one replica, in GiB; what is not an expert, every rank of a group has."""
        if self.spec is None or self.quantisation is None:
            return None
        weights = self.spec.weight_gib(self.quantisation)
        if self.shape is not None:
            share = self.shape.shared_b / self.spec.parameters_total_b
            weights *= 1 + share * (self.parallel.data - 1)
        return max(0.0, weights - float(self.args.get("cpu_offload_gb") or 0) * self.parallel.gpus)


@dataclass(frozen=True)
class Advice:
    """`warning`: it will disappoint. `hint`: it works, and there is something better."""

    level: Literal["warning", "hint"]
    text: str


def check(one: Hosted) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: `param` is the key of the deployment file.
    """
    for key, problem in _problems(one):
        raise ConfigError(f"engine_args.{key}: {problem}", param=f"engine_args.{key}")


def _problems(one: Hosted) -> Iterator[tuple[str, str]]:
    if one.shape is not None:
        yield from _shape_problems(one.parallel, one.shape)
    spec = one.spec
    if spec is None:
        return
    tensor = one.parallel.tensor
    if spec.tensor_parallel_max and tensor > spec.tensor_parallel_max and not one.parallel.expert:
        yield (
            "tensor_parallel_size",
            (
                f"{spec.id} can be split over {spec.tensor_parallel_max} GPUs at most, not {tensor}; "
                "keep experts whole with enable_expert_parallel: true, or use more replicas"
            ),
        )
    named = one.args.get("quantization")
    if named in _CHECKPOINT_FORMATS and one.quantisation == "bf16" and not one.own_weights:
        yield (
            "quantization",
            (
                f"{named!r} is a format of published weights, and those of {spec.id} are bf16; name weights "
                "in that format with `source`, choose a `layout` that has some, or let vLLM quantise: "
                "quantization: fp8"
            ),
        )
    yield from _memory_problems(one)


def _shape_problems(parallel: Parallelism, shape: Shape) -> Iterator[tuple[str, str]]:
    if shape.heads % parallel.tensor:
        yield (
            "tensor_parallel_size",
            (
                f"{shape.heads} attention heads cannot be divided by {parallel.tensor}; possible are "
                f"{', '.join(str(size) for size in _divisors(shape.heads))}"
            ),
        )
    if parallel.pipeline > shape.layers:
        yield (
            "pipeline_parallel_size",
            f"{shape.layers} layers make no {parallel.pipeline} stages",
        )
    if not shape.experts and parallel.expert:
        yield "enable_expert_parallel", "the model has no experts; take it out"
    if not shape.experts and parallel.data > 1:
        yield (
            "data_parallel_size",
            "the model has no experts to share, so ranks would be copies: use `replicas` instead",
        )


def _memory_problems(one: Hosted) -> Iterator[tuple[str, str]]:
    needed = one.needed_gib
    if needed is None or one.gpu is None or one.own_weights:
        return
    has = one.parallel.gpus * one.gpu.memory_gib
    if needed >= has * float(one.args.get("gpu_memory_utilization", _VLLM_MEMORY_SHARE)):
        yield (
            "tensor_parallel_size",
            (
                f"the weights take {needed:.0f} GiB ({one.quantisation}) and {one.parallel.gpus} x "
                f"{one.gpu.kind} have {has:.0f} GiB ({one.parallel.words}); use more GPUs, a `layout` with "
                "smaller weights (`comptoir catalogue show`), or quantization: fp8 on bf16 weights"
            ),
        )


# ---- what works and wastes -----------------------------------------------------------------------------


def advice(one: Hosted) -> list[Advice]:
    """What to change, in the words of the deployment file; warnings first."""
    found = [*_over_nodes(one), *_experts(one), *_memory(one), *_cache(one), *_formats(one)]
    return sorted(found, key=lambda each: each.level != "warning")


def _over_nodes(one: Hosted) -> Iterator[Advice]:
    tensor, node = one.parallel.tensor, one.gpus_per_node
    if tensor > node:
        rest = (one.parallel.gpus_per_rank + node - 1) // node
        yield Advice(
            "warning",
            f"tensor_parallel_size {tensor} reaches over nodes of {node} GPUs: every layer would wait for "
            f"the network twice; set tensor_parallel_size: {node} and pipeline_parallel_size: {rest}",
        )
    elif node % tensor:
        yield Advice("hint", f"tensor_parallel_size {tensor} leaves GPUs of a node of {node} over")
    if one.parallel.pipeline > 1 and one.parallel.gpus_per_rank <= node and _fast(one):
        yield Advice(
            "hint",
            f"pipeline_parallel_size {one.parallel.pipeline} inside one node: tensor_parallel_size "
            f"{one.parallel.gpus_per_rank} on the same GPUs answers sooner",
        )


def _fast(one: Hosted) -> bool:
    return one.gpu is None or one.gpu.fast_link


def _experts(one: Hosted) -> Iterator[Advice]:
    parallel, shape = one.parallel, one.shape
    if parallel.expert and parallel.tensor * parallel.data == 1:
        yield Advice("warning", "enable_expert_parallel does nothing on one GPU per stage")
    if parallel.data > 1 and not parallel.expert:
        yield Advice(
            "warning",
            "data_parallel_size without enable_expert_parallel cuts every expert into slices over all "
            "ranks; set enable_expert_parallel: true",
        )
    if shape is None or not shape.experts or parallel.expert or one.quantisation != "fp8":
        return
    if "quantization" in one.args or not shape.fp8_block:
        return
    width = shape.expert_width / (parallel.tensor * parallel.data)
    if width % shape.fp8_block:
        yield Advice(
            "warning",
            f"an expert's {shape.expert_width} columns over {parallel.tensor} GPUs are {width:g} each, no "
            f"multiple of the FP8 block of {shape.fp8_block}: vLLM refuses that when it loads; set "
            "enable_expert_parallel: true or a smaller tensor_parallel_size",
        )


def _memory(one: Hosted) -> Iterator[Advice]:
    needed = one.needed_gib
    if needed is None or one.gpu is None:
        return
    as_tested = (
        one.layout is not None
        and one.layout.tested
        and one.layout.gpus == one.parallel.gpus
        and one.layout.gpu == one.gpu.kind
    )
    has = one.parallel.gpus * one.gpu.memory_gib
    if needed * WEIGHT_HEADROOM > has and not as_tested:
        yield Advice(
            "warning",
            f"the weights take {needed:.0f} GiB of {has:.0f} ({one.parallel.words} on {one.gpu.kind}): less "
            "than a fifth is left beside them, for activations and the KV cache",
        )


def _cache(one: Hosted) -> Iterator[Advice]:
    shape, tensor = one.shape, one.parallel.tensor
    context = int(one.args.get("decode_context_parallel_size") or 1)
    if shape is None or one.args.get("runner") == "pooling":
        return
    copies = tensor // max(shape.kv_copies_from, 1) // context
    if copies < 2:
        return
    if shape.latent and shape.experts:
        yield Advice(
            "hint",
            f"tensor parallelism cannot cut keys and values of this model (MLA): all {tensor} GPUs keep the "
            f"same cache. data_parallel_size: {tensor} with tensor_parallel_size: 1 and "
            f"enable_expert_parallel: true holds up to {copies} times the tokens, for throughput; "
            f"decode_context_parallel_size: {tensor} cuts it by tokens, for long conversations",
        )
    else:
        yield Advice(
            "hint",
            f"the model has {shape.kv_heads} heads of keys and values: over {tensor} GPUs each is kept "
            f"{copies} times. decode_context_parallel_size: {copies} cuts that, or more replicas with "
            "fewer GPUs each",
        )


def _formats(one: Hosted) -> Iterator[Advice]:
    if one.quantisation in ("nvfp4", "mxfp4") and one.gpu is not None:
        yield Advice(
            "hint",
            f"{one.gpu.kind} has no 4-bit arithmetic: {one.quantisation} saves memory there and computes in "
            "16 bits",
        )
    if one.args.get("cpu_offload_gb"):
        yield Advice(
            "warning",
            "cpu_offload_gb: these weights cross the bus at every step, which costs most of the speed; for a "
            "larger KV cache use kv_offloading_size",
        )
    if one.args.get("kv_offloading_size") and one.args.get("enable_prefix_caching") is False:
        yield Advice(
            "warning", "kv_offloading_size: without enable_prefix_caching nothing is ever read back"
        )
    if one.args.get("kv_offloading_backend") == "lmcache":
        yield Advice(
            "hint",
            "kv_offloading_backend lmcache: an LMCache server must run on every node; kv_offloading_size "
            "does not bound it",
        )


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
