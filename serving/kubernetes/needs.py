"""How many pods of which kind a deployment file needs. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from serving.errors import ConfigError
from serving.kubernetes.config import GpuPool, KubernetesConfig

SIZES: tuple[int, ...] = (1, 2, 4, 8)


@dataclass(frozen=True)
class ModelNeed:
    """What one replica of a model takes, and how many there may be."""

    id: str
    gpu: str | None  # kind in lower case; None: CPU
    gpus: int
    num_cpus: float
    replicas_min: int
    replicas_max: int
    drain_timeout_s: float = 60.0


@dataclass(frozen=True)
class Group:
    """A worker group of model pods. `size` is GPUs per pod, or logical CPUs where there are none."""

    name: str
    gpu: str | None
    size: int
    pods_min: int
    pods_max: int


def groups(config: KubernetesConfig, needs: Sequence[ModelNeed]) -> list[Group]:
    """One group per GPU type, by name, and one for models on the CPU.

    Raises:
        ConfigError: a model needs a type of GPU that the site, which lists some, does not have.
    """
    for need in needs:
        if need.gpu is not None and config.gpus and need.gpu not in config.gpus:
            raise ConfigError(
                f"model {need.id!r} needs {need.gpu}, and the site has: "
                f"{', '.join(sorted(config.gpus))}; change `gpu` of the model, or add --gpu {need.gpu}",
                param="gpu",
            )
    found = []
    for kind in sorted({need.gpu for need in needs if need.gpu is not None}):
        found.append(_gpu_group(kind, config.gpus.get(kind, GpuPool()), needs))
    on_cpu = [need for need in needs if need.gpu is None]
    if on_cpu:
        size = config.cpu.cpu
        low = pods(_amounts(on_cpu, lowest=True), size)
        high = pods(_amounts(on_cpu, lowest=False), size)
        found.append(Group("cpu", None, size, low, max(low, high)))
    return found


def pods(amounts: Iterable[float], size: int) -> int:
    """Pods of `size` that hold these replicas, largest first; a larger one takes whole pods."""
    free: list[float] = []
    whole = 0
    for amount in sorted(amounts, reverse=True):
        if amount > size:
            whole += math.ceil(amount / size)
            continue
        for index, room in enumerate(free):
            if amount <= room + 1e-9:
                free[index] = room - amount
                break
        else:
            free.append(size - amount)
    return whole + len(free)


def _gpu_group(kind: str, pool: GpuPool, needs: Sequence[ModelNeed]) -> Group:
    ours = [need for need in needs if need.gpu == kind]
    first = list(_amounts(ours, lowest=True)) or [max(need.gpus for need in ours)]
    fitting: Iterable[int] = (s for s in SIZES if s >= sum(first))
    size: int = pool.gpus_per_pod or next(iter(fitting), SIZES[-1])
    low = pods(_amounts(ours, lowest=True), size)
    high = pods(_amounts(ours, lowest=False), size)
    return Group(f"gpu-{kind}", kind, size, low, max(low, high, 1))


def _amounts(needs: Iterable[ModelNeed], *, lowest: bool) -> Iterable[float]:
    return chain.from_iterable(
        repeat(
            float(need.gpus) if need.gpu else need.num_cpus,
            need.replicas_min if lowest else need.replicas_max,
        )
        for need in needs
    )
