"""The sources of capacity: sweeps where there are any, the catalogue's figures where there are none."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.plan.capacity import ClassCapacity, Hardware, sweep_command
from loadtests.plan.measured import measured_capacity
from loadtests.plan.model import CPU, HostedConfig, PlanConfig, TrafficConfig
from loadtests.plan.roofline import estimate, layout_for
from loadtests.plan.scaling import Limit, Scaling
from loadtests.plan.sweeps import Measured
from loadtests.workload.scenario import SloConfig
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.gpus import GPUS
from serving.errors import ConfigError


def capacities(
    plan: PlanConfig, sweeps: Sequence[Measured], catalogue: Catalogue, *, measured_only: bool
) -> dict[str, ClassCapacity]:
    """The capacity of every class, by its name.

    Raises:
        ConfigError: a sweep is missing, does not fit, or belongs to nothing in the plan.
    """
    used = {one.model for one in plan.traffic}
    for one in sweeps:
        if one.model not in used:
            raise ConfigError(
                f"--sweep: {one.where} measured model {one.model!r}; the plan's traffic asks "
                f"{', '.join(sorted(used))}: leave it out, or correct traffic.*.model",
                param="--sweep",
            )
    found: dict[str, ClassCapacity] = {}
    for kind in plan.traffic:
        mine = [one for one in sweeps if one.model == kind.model]
        hosted = plan.hosted(kind.model)
        if mine:
            found[kind.name] = measured_capacity(plan, kind, hosted, mine)
        elif measured_only:
            hardware = Hardware(hosted.gpu or "GPU", hosted.gpus_per_replica or 1)
            raise ConfigError(
                f"--measured-only: no sweep of {kind.model} was given for traffic.{kind.name}: run "
                f"{sweep_command(kind.input_tokens, kind.output_tokens, hardware)} with a scenario that "
                f"asks {kind.model}",
                param="--measured-only",
            )
        else:
            found[kind.name] = _estimated(kind, hosted, catalogue)
    return found


def _estimated(kind: TrafficConfig, hosted: HostedConfig, catalogue: Catalogue) -> ClassCapacity:
    entry = hosted.catalogue or kind.model
    if entry not in catalogue or hosted.gpu in (None, CPU):
        raise ConfigError(
            f"models.{kind.model}: nothing was measured: give --sweep, or gpu "
            f"({', '.join(GPUS)}) and a catalogue entry for an estimate"
            + ("" if entry in catalogue else f" ({entry!r} is none: `comptoir catalogue list`)"),
            param=f"models.{kind.model}",
        )
    spec, gpu = catalogue.get(entry), GPUS[str(hosted.gpu)]
    layout = layout_for(spec, gpu, hosted)
    gpus = hosted.gpus_per_replica or layout.gpus
    low, typical, high = (
        estimate(spec, gpu, layout, gpus, kind, hosted, level)
        for level in ("low", "typical", "high")
    )
    if typical.rate_per_s <= 0:
        raise ConfigError(
            f"traffic.{kind.name}.slo: by the estimate, {gpus} x {gpu.kind} cannot keep it with {entry}: "
            "take more GPUs per replica, loosen it, or measure",
            param="slo",
        )
    limit = Limit(
        replicas=1,
        # Where the slow figures break the SLO, half of the usual ones stands for them.
        sure_per_s=min(low.rate_per_s, typical.rate_per_s) or typical.rate_per_s / 2,
        likely_per_s=typical.rate_per_s,
        most_per_s=max(high.rate_per_s, typical.rate_per_s),
        in_flight=typical.rate_per_s * typical.e2e_s,
    )
    seconds = sorted((low.e2e_s, typical.e2e_s, high.e2e_s))
    return ClassCapacity(
        basis="estimate",
        hardware=Hardware(gpu.kind, gpus),
        scaling=Scaling.of([limit]),
        e2e_s={"low": seconds[0], "typical": seconds[1], "high": seconds[2]},
        slo=kind.slo or SloConfig(),
    )
