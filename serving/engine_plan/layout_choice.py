"""The choice of a layout for a model, and the kind of GPU that it means. Pure."""

from __future__ import annotations

from serving.catalogue.spec import GpuLayout, ModelSpec
from serving.errors import ConfigError
from serving.settings import ModelConfig


def choose(config: ModelConfig, spec: ModelSpec, gpu: str | None) -> GpuLayout | None:
    """The layout that the config names, or the one with the fewest of these GPUs; None: none is needed.

    Raises:
        ConfigError: there is none for these GPUs, or the named one does not exist.
    """
    if config.layout is not None:
        return _named_layout(spec, config.layout, config.gpu)
    fitting = [layout for layout in spec.layouts if gpu is None or layout.gpu == gpu.lower()]
    if fitting:
        return min(fitting, key=lambda layout: layout.gpus)
    if "tensor_parallel_size" in config.engine_args:
        return None
    kinds = ", ".join(sorted({layout.gpu for layout in spec.layouts})) or "none"
    raise ConfigError(
        f"{spec.id} has no layout for {gpu or 'a GPU'}; it has some for: {kinds}. Choose one with "
        "`layout`, or set engine_args.tensor_parallel_size",
        param="gpu",
    )


def accelerator(
    config: ModelConfig, device: str, layout: GpuLayout | None, gpu: str | None
) -> str | None:
    """The kind of GPU as Ray names it, or None where any will do."""
    if device == "cpu":
        return None
    kind = layout.gpu if layout is not None and config.layout is not None else gpu
    return kind.upper() if kind else None


def _named_layout(spec: ModelSpec, number: int, gpu: str | None) -> GpuLayout:
    if number >= len(spec.layouts):
        raise ConfigError(
            f"layout {number} of {spec.id} does not exist; there are {len(spec.layouts)}, counted "
            f"from 0 (`comptoir catalogue show {spec.id}`)",
            param="layout",
        )
    layout = spec.layouts[number]
    if gpu is not None and gpu.lower() != layout.gpu:
        raise ConfigError(
            f"layout {number} of {spec.id} is for {layout.gpu}, and `gpu` says {gpu}",
            param="layout",
        )
    return layout
