"""The capacity of a model's replicas for one class of requests, in any number, and its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from loadtests.plan.model import CPU, Level
from loadtests.plan.scaling import Scaling
from loadtests.workload.scenario import SloConfig

Basis = Literal["measured", "estimate"]


@dataclass(frozen=True, slots=True)
class Hardware:
    """The hardware of one replica; `gpu` is `cpu` where it has none."""

    gpu: str
    gpus_per_replica: int

    def __str__(self) -> str:
        return self.gpu if self.gpu == CPU else f"{self.gpus_per_replica} x {self.gpu}"


@dataclass(frozen=True, slots=True)
class ClassCapacity:
    """One class of requests on one model's replicas.

    `e2e_s` are seconds of a request at little, usual and full load. `slots` bounds the requests in flight
    on a replica (None: what was measured does). `sources` are the sweeps that it comes from,
    `short_sweeps` those of them whose runs were too short to trust the rate.
    """

    basis: Basis
    hardware: Hardware
    scaling: Scaling
    e2e_s: Mapping[Level, float]
    slo: SloConfig
    slots: float | None = None
    sources: tuple[str, ...] = ()
    short_sweeps: tuple[str, ...] = ()
    measured_replicas: tuple[int, ...] = ()

    def rate_per_s(self, replicas: int, level: Level) -> float:
        """Requests per second that so many replicas carry within the SLO."""
        rate = self.scaling.rate_per_s(replicas, level)
        if self.slots is None:
            return rate
        return min(rate, replicas * self.slots / self.e2e_s["high"])


def sweep_command(
    input_tokens: float, output_tokens: float, hardware: Hardware, replicas: int = 1
) -> str:
    """The command for the missing measurement."""
    place = (
        ""
        if hardware.gpu == CPU
        else f" --gpu {hardware.gpu} --gpus-per-replica {hardware.gpus_per_replica}"
    )
    return (
        f"`comptoir load sweep SCENARIO --input {input_tokens:.0f} --output {output_tokens:.0f}"
        f"{place} --replicas {replicas}`"
    )
