"""Describes a model as it would run, for the rules of `spread`: from configuration, entry and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.catalogue import tiny
from serving.catalogue.gpus import GPUS
from serving.catalogue.shapes import Shape, from_config, read_shape, shape_of
from serving.catalogue.spec import ModelSpec
from serving.config.parallel import Parallelism
from serving.engine_plan import layout_choice, lora, spread
from serving.engine_plan.spread import Hosted
from serving.errors import ConfigError
from serving.settings import ModelConfig


def describe(
    config: ModelConfig,
    spec: ModelSpec | None,
    args: Mapping[str, Any],
    *,
    device: str,
    gpu: str | None,
) -> Hosted:
    """Put together what is known.

    Args:
        spec: the catalogue entry; None for a tiny model.
        args: the final engine arguments.

    Raises:
        ConfigError: an argument asks for what replicas here cannot do.
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
            "take it out",
            param="engine_args.enable_expert_parallel",
        )


def check(one: Hosted) -> None:
    """Refuse what cannot work: parallelism, memory, adapters.

    Raises:
        ConfigError: `param` is the key of the deployment file.
    """
    lora.check_arguments(one.args)
    spread.check(one)


def _shape(config: ModelConfig, spec: ModelSpec | None) -> Shape | None:
    if spec is None:
        return from_config(tiny.family(config.entry).config)
    # The operator's own folder says it best, where it is on this machine.
    own = read_shape(Path(config.source)) if config.source else None
    return own or shape_of(spec.id)
