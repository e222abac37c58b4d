"""Advice on wasteful ways to spread a model, in the words of the deployment file. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from serving.catalogue.spec import WEIGHT_HEADROOM
from serving.engine_plan.hosted import Hosted


@dataclass(frozen=True)
class Advice:
    """`warning`: it will disappoint. `hint`: it works, and there is something better."""

    level: Literal["warning", "hint"]
    text: str


def advice(one: Hosted) -> list[Advice]:
    """Changes that would help, in the words of the deployment file; warnings first."""
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
