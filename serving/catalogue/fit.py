"""Which models fit on a number of GPUs, how they are laid out, and why the others do not.

An entry's own layouts come first, in its order; where none applies, the smallest power of two of
GPUs whose memory is 1.2 times the weights is taken. That is called `computed`: arithmetic only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.frozen import Frozen
from serving.catalogue.gpus import GPUS_PER_NODE, Gpu, get_gpu
from serving.catalogue.layouts import GpuLayout, Quantisation
from serving.catalogue.licences import Licence, Standing
from serving.catalogue.spec import WEIGHT_HEADROOM, ModelSpec
from serving.errors import ConfigError

# vLLM's default share of GPU memory; the rest is for the driver and for bursts.
GPU_MEMORY_UTILISATION = 0.9
_MAX_GPUS = 4096


class FitRow(Frozen):
    """One model on the GPUs asked about; per replica, except `replicas`.

    `fits` is about memory alone; `licence` and `needs_remote_code` say what else stands in the way.
    `kv_cache_gib` is an upper bound: activations are not deducted.
    """

    model_id: str
    fits: bool
    reason: str
    layout: GpuLayout | None
    replicas: int
    weights_gib: float
    kv_cache_gib: float | None
    licence: Standing
    licence_verified: bool
    needs_remote_code: bool

    @property
    def usable(self) -> bool:
        """Whether it fits, has a licence that a site can accept, and starts as published."""
        return self.fits and self.licence in ("ok", "duty") and not self.needs_remote_code


def fit(catalogue: Catalogue, gpu: str, count: int, jurisdiction: str = "EU") -> list[FitRow]:
    """Judge every entry on `count` GPUs of one kind, given to one model at a time.

    Returns:
        Those that fit first, largest first; then those that do not, smallest first.

    Raises:
        ConfigError: the GPU or jurisdiction is unknown, or `count` is out of range.
    """
    card = get_gpu(gpu)
    if not 1 <= count <= _MAX_GPUS:
        raise ConfigError(f"count {count} is out of range: 1 to {_MAX_GPUS}", param="count")
    rows = [
        fit_one(spec, catalogue.licence_of(spec), card, count, jurisdiction) for spec in catalogue
    ]
    fitting = sorted((row for row in rows if row.fits), key=lambda row: -row.weights_gib)
    return fitting + sorted((row for row in rows if not row.fits), key=lambda row: row.weights_gib)


def fit_one(
    spec: ModelSpec, licence: Licence, gpu: Gpu, count: int, jurisdiction: str = "EU"
) -> FitRow:
    """Judge one entry; see `fit`."""
    layout = choose_layout(spec, gpu, count)
    quantisation = layout.quantisation if layout else smallest_quantisation(spec)
    weights_gib = spec.weight_gib(quantisation)
    kv_cache_gib: float | None = None
    reason = ""
    if layout is not None:
        kv_cache_gib = max(0.0, layout.memory_gib * GPU_MEMORY_UTILISATION - weights_gib)
    else:
        needed = math.ceil(weights_gib * WEIGHT_HEADROOM / gpu.memory_gib)
        has = f"{count} x {gpu.kind} have {count * gpu.memory_gib:.0f} GiB"
        reason = (
            f"{quantisation} weights with headroom need {weights_gib * WEIGHT_HEADROOM:.0f} GiB, "
            f"{has}; {_next_power_of_two(needed)} GPUs would do"
        )
    return FitRow(
        model_id=spec.id,
        fits=layout is not None,
        reason=reason,
        layout=layout,
        replicas=count // layout.gpus if layout else 0,
        weights_gib=round(weights_gib, 1),
        kv_cache_gib=None if kv_cache_gib is None else round(kv_cache_gib, 1),
        licence=licence.standing(jurisdiction),
        licence_verified=licence.verified,
        needs_remote_code=spec.needs_remote_code,
    )


def choose_layout(spec: ModelSpec, gpu: Gpu, count: int) -> GpuLayout | None:
    """The entry's first own layout that these GPUs allow, else the smallest computed one."""
    for layout in spec.layouts:
        if layout.gpu == gpu.kind and layout.gpus <= count:
            return layout
    return next(_computed_layouts(spec, gpu, count), None)


def quantisations(spec: ModelSpec) -> list[Quantisation]:
    """Quantisations in which the weights can be loaded: as published first, then other checkpoints."""
    known: tuple[Quantisation, ...] = get_args(Quantisation)
    return sorted(
        (name for name in known if spec.can_be_served_at(name)),
        key=lambda name: (name != spec.native_dtype, -spec.weight_gib(name)),
    )


def smallest_quantisation(spec: ModelSpec) -> Quantisation:
    """The quantisation that needs the least memory."""
    return min(quantisations(spec), key=spec.weight_gib)


def _computed_layouts(spec: ModelSpec, gpu: Gpu, count: int) -> Iterator[GpuLayout]:
    widest = min(GPUS_PER_NODE, spec.tensor_parallel_max or GPUS_PER_NODE)
    for quantisation in quantisations(spec):
        needed_gib = spec.weight_gib(quantisation) * WEIGHT_HEADROOM
        gpus = 1
        while gpus <= count:
            # Tensor parallelism stays inside a node, where the links are; nodes form a pipeline.
            tensor_parallel = min(gpus, widest)
            if gpus * gpu.memory_gib >= needed_gib:
                yield GpuLayout(
                    gpu=gpu.kind,
                    tensor_parallel=tensor_parallel,
                    pipeline_parallel=gpus // tensor_parallel,
                    quantisation=quantisation,
                )
                break
            gpus *= 2


def _next_power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
