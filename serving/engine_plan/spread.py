"""Whether a model can be spread as requested: refuses what vLLM would find after minutes, or never. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from serving.catalogue.shapes import Shape
from serving.config.parallel import Parallelism
from serving.engine_plan.hosted import Hosted
from serving.errors import ConfigError

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


def check(one: Hosted) -> None:
    """Refuse a spread that cannot work.

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
                f"{shape.heads} attention heads cannot be divided by {parallel.tensor}; possible: "
                f"{', '.join(str(size) for size in _divisors(shape.heads))}"
            ),
        )
    if parallel.pipeline > shape.layers:
        yield (
            "pipeline_parallel_size",
            f"{shape.layers} layers make no {parallel.pipeline} stages",
        )
    if not shape.experts and parallel.expert:
        yield "enable_expert_parallel", "the model has no experts; remove it"
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


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
