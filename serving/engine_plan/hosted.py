"""A model as it would run, from configuration, entry and arguments: the input of the rules. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.catalogue import tiny
from serving.catalogue.gpus import GPUS, Gpu
from serving.catalogue.layouts import GpuLayout, Quantisation
from serving.catalogue.shapes import Shape, from_config, read_shape, shape_of
from serving.catalogue.spec import ModelSpec
from serving.config.parallel import Parallelism
from serving.engine_plan import layout_choice
from serving.errors import ConfigError
from serving.settings import ModelConfig

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


@dataclass(frozen=True)
class Hosted:
    """One model as it would run: the input of the rules."""

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
        """The quantisation in which the weights are loaded; None where it is unknown."""
        if self.spec is None:
            return None
        published = self.layout.quantisation if self.layout else self.spec.native_dtype
        named = self.args.get("quantization")
        if published == "bf16" and isinstance(named, str):
            return ONLINE_QUANTISATIONS.get(named, published)
        return published

    @property
    def needed_gib(self) -> float | None:
        """Weights on the GPUs of one replica, in GiB; every rank of a group has all but the experts."""
        if self.spec is None or self.quantisation is None:
            return None
        weights = self.spec.weight_gib(self.quantisation)
        if self.shape is not None:
            share = self.shape.shared_b / self.spec.parameters_total_b
            weights *= 1 + share * (self.parallel.data - 1)
        return max(0.0, weights - float(self.args.get("cpu_offload_gb") or 0) * self.parallel.gpus)


def describe(
    config: ModelConfig,
    spec: ModelSpec | None,
    args: Mapping[str, Any],
    *,
    device: str,
    gpu: str | None,
) -> Hosted:
    """Combine the known facts of a model.

    Args:
        spec: the catalogue entry; None for a tiny model.
        args: the final engine arguments.

    Raises:
        ConfigError: an argument is not supported.
    """
    parallel = Parallelism.from_args(args)
    _check_groups(config, parallel)
    if device == "cpu":
        _check_cpu(parallel, args)
    on_gpus = device == "gpu" and spec is not None
    layout = layout_choice.choose(config, spec, gpu) if on_gpus and spec else None
    kind = layout_choice.accelerator(config, device, layout, gpu)
    return Hosted(
        model_id=config.id,
        parallel=parallel,
        args=args,
        shape=_shape(config, spec),
        spec=spec,
        layout=layout,
        gpu=GPUS.get(kind.lower()) if kind and on_gpus else None,
        gpus_per_node=config.gpus_per_node,
        own_weights=config.source is not None,
    )


def _check_groups(config: ModelConfig, parallel: Parallelism) -> None:
    if parallel.data > 1 and config.replicas.min != config.replicas.max:
        raise ConfigError(
            f"replicas: with data_parallel_size a replica is a group of {parallel.data} ranks, and groups "
            "are not scaled automatically; set min and max to the same number",
            param="replicas",
        )


def _check_cpu(parallel: Parallelism, args: Mapping[str, Any]) -> None:
    if parallel.pipeline > 1 and args.get("enforce_eager"):
        # vLLM's CPU worker makes the buffer between stages while it warms up, and in eager mode it does not.
        raise ConfigError(
            "engine_args.pipeline_parallel_size: stages on a CPU fail at the first request in eager mode; "
            "use tensor_parallel_size, or see docs/large-models.md, On a CPU",
            param="engine_args.pipeline_parallel_size",
        )
    if parallel.data > 1 and "worker_extension_cls" not in args:
        raise ConfigError(
            "engine_args.data_parallel_size: vLLM's CPU workers cannot share experts between ranks (no "
            "all_gatherv); use it on GPUs, or worker_extension_cls that brings it",
            param="engine_args.data_parallel_size",
        )
    if parallel.expert and parallel.tensor * parallel.data > 1:
        # It crashed, or answered nonsense, in 0.32: its kernels do not look at the map of experts.
        raise ConfigError(
            "engine_args.enable_expert_parallel: vLLM's CPU workers do not know which experts are theirs; "
            "remove it",
            param="engine_args.enable_expert_parallel",
        )


def _shape(config: ModelConfig, spec: ModelSpec | None) -> Shape | None:
    if spec is None:
        return from_config(tiny.family(config.entry).config)
    # The operator's own folder says it best, where it is on this machine.
    own = read_shape(Path(config.source)) if config.source else None
    return own or shape_of(spec.id)
