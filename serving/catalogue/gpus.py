"""The GPUs the catalogue knows: memory, bandwidth and power of one card.

Memory is what CUDA reports as total, a little less than the number on the box (an "80 GB" H100
shows 79.1 GiB). Bandwidth, compute and power are the vendor's data-sheet figures; compute is dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from serving.errors import ConfigError

GpuKind = Literal["l40s", "h100", "h200"]

GPUS_PER_NODE = 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card. `fast_link` says whether cards of a node talk over NVLink rather than PCIe."""

    kind: GpuKind
    name: str
    memory_gib: float
    bandwidth_gb_s: float
    bf16_tflops: float
    power_w: int
    fast_link: bool


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "l40s": Gpu("l40s", "NVIDIA L40S 48 GB", 44.4, 864, 362, 350, False),
        "h100": Gpu("h100", "NVIDIA H100 SXM 80 GB", 79.1, 3350, 989, 700, True),
        "h200": Gpu("h200", "NVIDIA H200 SXM 141 GB", 139.8, 4800, 989, 700, True),
    }
)


def get_gpu(kind: str) -> Gpu:
    """Look a GPU up by its kind, in any case.

    Raises:
        ConfigError: the kind is unknown; the message lists those that exist.
    """
    gpu = GPUS.get(kind.lower())
    if gpu is None:
        raise ConfigError(f"gpu {kind!r} is unknown; known: {', '.join(GPUS)}", param="gpu")
    return gpu
