"""The pods that a deployment file needs, by kind and number. Pure arithmetic."""

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
    """The needs of one replica of a model, and the bounds on their number."""

    id: str
    gpu: str | None  # kind in lower case; None: CPU
    gpus_per_rank: int  # of one engine
    num_cpus: float  # of one engine
    replicas_min: int
    replicas_max: int
    drain_timeout_s: float = 60.0
    ranks: int = 1  # engines of one replica
    gpus_per_node: int = 8

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.gpus_per_rank * self.ranks

    @property
    def stays_together(self) -> bool:
        """Whether an engine runs on one node or not at all; a larger one takes whole nodes."""
        return self.gpus_per_rank <= self.gpus_per_node


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
    size = pool.gpus_per_pod or _usual_size(ours)
    for need in ours:
        _require_room(need, size, kind)
    low = pods(_amounts(ours, lowest=True), size)
    high = pods(_amounts(ours, lowest=False), size)
    return Group(f"gpu-{kind}", kind, size, low, max(low, high, 1))


def _usual_size(needs: Sequence[ModelNeed]) -> int:
    """The smallest pod that holds the first replicas, as far as a node has GPUs, and every engine."""
    first = sum(_amounts(needs, lowest=True))
    node = min(need.gpus_per_node for need in needs)
    engine = max(min(need.gpus_per_rank, need.gpus_per_node) for need in needs)
    fitting = (size for size in SIZES if size >= max(engine, min(first, node)))
    return next(fitting, SIZES[-1])


def _require_room(need: ModelNeed, size: int, kind: str) -> None:
    """Refuse an engine that stays on one node without a pod that large, for which Ray would wait for ever.

    Raises:
        ConfigError: it names the model, its GPUs and the keys.
    """
    needed = min(need.gpus_per_rank, need.gpus_per_node)
    if needed <= size:
        return
    engine = "an engine" if need.ranks == 1 else f"each of the {need.ranks} engines of a replica"
    if need.stays_together:
        what = f"{engine} has {needed} GPUs and stays on one node (gpus_per_node: "
    else:
        what = f"{engine} has {need.gpus_per_rank} GPUs and takes whole nodes (gpus_per_node: "
    fitting = next((one for one in SIZES if one >= needed), None)
    larger = f"set gpus.{kind}.gpus_per_pod: {fitting} in the settings, or " if fitting else ""
    raise ConfigError(
        f"model {need.id!r}: {what}{need.gpus_per_node}), and pods have {size} {kind}: {larger}set "
        f"gpus_per_node: {size} of the model for engines over several pods, or a smaller "
        "engine_args.tensor_parallel_size",
        param=f"gpus.{kind}.gpus_per_pod",
    )


def _amounts(needs: Iterable[ModelNeed], *, lowest: bool) -> Iterable[float]:
    return chain.from_iterable(
        repeat(
            float(need.gpus_per_rank) if need.gpu else need.num_cpus,
            need.ranks * (need.replicas_min if lowest else need.replicas_max),
        )
        for need in needs
    )
