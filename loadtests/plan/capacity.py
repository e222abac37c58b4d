"""What replicas of a model carry of one class of requests: measured, or estimated where nothing was.

`ClassCapacity` answers for any number of replicas. Measured sweeps must bound the class's lengths: nothing is
extrapolated, and the error says which sweep is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.plan.interpolate import Band, LengthPoint, along, gap, interpolate
from loadtests.plan.model import CPU, HostedConfig, Level, PlanConfig, TrafficConfig
from loadtests.plan.roofline import estimate, layout_for
from loadtests.plan.scaling import Limit, Scaling
from loadtests.plan.sweeps import Measured
from loadtests.scenario import SloConfig
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.gpus import GPUS
from serving.errors import ConfigError

Basis = Literal["measured", "estimate"]
METRICS = ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms")
# A long request over the mean one, where neither plan nor sweep says it.
LONG_REQUEST = 1.5


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one replica of a model runs on; `gpu` is `cpu` where it has none."""

    gpu: str
    gpus_per_replica: int

    def __str__(self) -> str:
        return self.gpu if self.gpu == CPU else f"{self.gpus_per_replica} x {self.gpu}"


@dataclass(frozen=True, slots=True)
class ClassCapacity:
    """One class of requests on one model's replicas.

    `e2e_s` are seconds of a request at little, usual and full load. `slots` bounds the requests in flight
    on a replica (None: what was measured does). `sources` are the sweeps that it comes from.
    """

    basis: Basis
    hardware: Hardware
    scaling: Scaling
    e2e_s: Mapping[Level, float]
    slo: SloConfig
    slots: float | None = None
    sources: tuple[str, ...] = ()
    measured_replicas: tuple[int, ...] = ()

    def rate_per_s(self, replicas: int, level: Level) -> float:
        """Requests per second that so many replicas carry within the SLO."""
        rate = self.scaling.rate_per_s(replicas, level)
        if self.slots is None:
            return rate
        return min(rate, replicas * self.slots / self.e2e_s["high"])


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
            found[kind.name] = _measured(plan, kind, hosted, mine)
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


def sweep_command(
    input_tokens: float, output_tokens: float, hardware: Hardware, replicas: int = 1
) -> str:
    """The command that measures what is missing."""
    place = (
        ""
        if hardware.gpu == CPU
        else f" --gpu {hardware.gpu} --gpus-per-replica {hardware.gpus_per_replica}"
    )
    return (
        f"`comptoir load sweep SCENARIO --input {input_tokens:.0f} --output {output_tokens:.0f}"
        f"{place} --replicas {replicas}`"
    )


# ---- measured ----------------------------------------------------------------------------------------


def _measured(
    plan: PlanConfig, kind: TrafficConfig, hosted: HostedConfig, sweeps: Sequence[Measured]
) -> ClassCapacity:
    hardware = _hardware(kind.model, hosted, sweeps)
    here = [one for one in sweeps if one.hardware == (hardware.gpu, hardware.gpus_per_replica)]
    strict = [one for one in here if kind.slo is None or _covers(one.slo, kind.slo)]
    if not strict:
        raise ConfigError(
            f"traffic.{kind.name}.slo: no sweep of {kind.model} was run with an SLO at least as strict "
            f"({_slo_text(kind.slo)}; swept: {'; '.join(_slo_text(one.slo) for one in here)}): sweep "
            "with this SLO, or loosen neither",
            param="slo",
        )
    slos = {one.slo.model_dump_json() for one in strict}
    if kind.slo is None and len(slos) > 1:
        raise ConfigError(
            f"traffic.{kind.name}.slo: is required: the sweeps of {kind.model} have different SLOs",
            param="slo",
        )
    covered: dict[int, list[Measured]] = {}
    for one in strict:
        covered.setdefault(one.replicas, []).append(one)
    sides = {count: _gap(kind, group) for count, group in covered.items()}
    inside = {count: group for count, group in covered.items() if sides[count] is None}
    if not inside:
        raise _out_of_range(kind, hardware, covered, sides)
    limits = [_limit(kind, count, group, plan.utilisation) for count, group in inside.items()]
    base = inside[min(inside)]
    return ClassCapacity(
        basis="measured",
        hardware=hardware,
        scaling=Scaling.of(limits),
        e2e_s=_e2e_s(kind, base, plan.utilisation),
        slo=kind.slo or strict[0].slo,
        slots=_slots(kind, hosted, base),
        sources=tuple(one.where for group in inside.values() for one in group),
        measured_replicas=tuple(sorted(inside)),
    )


def _hardware(model: str, hosted: HostedConfig, sweeps: Sequence[Measured]) -> Hardware:
    fitting = {
        one.hardware
        for one in sweeps
        if hosted.gpu in (None, one.gpu) and hosted.gpus_per_replica in (None, one.gpus_per_replica)
    }
    swept = ", ".join(sorted({str(Hardware(*one.hardware)) for one in sweeps}))
    if not fitting:
        raise ConfigError(
            f"models.{model}: gpu and gpus_per_replica fit none of the sweeps of it, which are of {swept}: "
            "sweep on this hardware, or correct them",
            param=f"models.{model}",
        )
    if len(fitting) > 1:
        raise ConfigError(
            f"models.{model}: sweeps are of several kinds of hardware ({swept}): name gpu and "
            "gpus_per_replica",
            param=f"models.{model}",
        )
    return Hardware(*fitting.pop())


def _covers(swept: SloConfig, wanted: SloConfig) -> bool:
    """Whether a rate that kept the one keeps the other."""
    if swept.target < wanted.target - 1e-9:
        return False
    for metric in METRICS:
        limit, had = getattr(wanted, metric), getattr(swept, metric)
        if limit is not None and (had is None or had > limit * (1 + 1e-9)):
            return False
    return True


def _slo_text(slo: SloConfig | None) -> str:
    if slo is None:
        return "none"
    named = [f"{key} {getattr(slo, key):g}" for key in METRICS if getattr(slo, key) is not None]
    return ", ".join([*named, f"target {slo.target:g}"])


def _gap(kind: TrafficConfig, group: Sequence[Measured]) -> str | None:
    return gap(_points(group, "held"), kind.input_tokens, kind.output_tokens)


def _out_of_range(
    kind: TrafficConfig,
    hardware: Hardware,
    covered: Mapping[int, Sequence[Measured]],
    sides: Mapping[int, str | None],
) -> ConfigError:
    count = min(covered)
    side = "long" if sides[count] == "longer" else "short"
    lengths = ", ".join(f"{one.input_tokens:.0f}+{one.output_tokens:.0f}" for one in covered[count])
    wanted = f"{kind.input_tokens:g} input and {kind.output_tokens:g} output tokens"
    return ConfigError(
        f"traffic.{kind.name}: {wanted} are outside what was measured of {kind.model} on {hardware} "
        f"(input+output: {lengths}): a sweep of requests at least as {side} is "
        f"missing: run {sweep_command(kind.input_tokens, kind.output_tokens, hardware, count)} with a "
        f"scenario that asks {kind.model}",
        param=f"traffic.{kind.name}",
    )


def _points(group: Sequence[Measured], what: Literal["held", "failed"]) -> list[LengthPoint]:
    """Of several sweeps at one length, the one that found least counts."""
    return [
        LengthPoint(
            one.input_tokens,
            one.output_tokens,
            one.held_per_s if what == "held" or one.failed_per_s is None else one.failed_per_s,
        )
        for one in group
    ]


def _limit(
    kind: TrafficConfig, replicas: int, group: Sequence[Measured], utilisation: float
) -> Limit:
    held = _band(kind, group, "held")
    failed = _band(kind, group, "failed")
    e2e_s = _e2e_s(kind, group, utilisation)
    return Limit(
        replicas=replicas,
        sure_per_s=held.low,
        likely_per_s=held.middle,
        most_per_s=max(failed.high, held.middle),
        in_flight=held.middle * e2e_s["high"],
    )


def _band(kind: TrafficConfig, group: Sequence[Measured], what: Literal["held", "failed"]) -> Band:
    return interpolate(_points(group, what), kind.input_tokens, kind.output_tokens)


def _e2e_s(
    kind: TrafficConfig, group: Sequence[Measured], utilisation: float
) -> dict[Level, float]:
    """Seconds of a request: at the lowest rate that was measured, at the plan's, at the highest that held."""

    def at(share: float | None) -> float:
        points = []
        for one in group:
            rate = one.e2e_s[0][0] if share is None else one.held_per_s * share
            # What falls with the length is the number of requests that one place serves in a second.
            each = 1 / along(one.e2e_s, rate)
            points.append(LengthPoint(one.input_tokens, one.output_tokens, each))
        return 1 / interpolate(points, kind.input_tokens, kind.output_tokens).middle

    return {"low": at(None), "typical": at(utilisation), "high": at(1.0)}


def _slots(kind: TrafficConfig, hosted: HostedConfig, group: Sequence[Measured]) -> float | None:
    """Requests that fit on a replica: its batch, and its KV cache over a long request."""
    mean = kind.input_tokens + kind.output_tokens
    ratios = [
        one.total_tokens_p95 / (one.input_tokens + one.output_tokens)
        for one in group
        if one.total_tokens_p95 > 0
    ]
    long_request = kind.total_tokens_p95 or mean * max([1.0, *ratios] if ratios else [LONG_REQUEST])
    bounds = [
        float(hosted.max_num_seqs) if hosted.max_num_seqs else None,
        hosted.kv_cache_tokens / long_request if hosted.kv_cache_tokens else None,
    ]
    known = [one for one in bounds if one is not None]
    return min(known) if known else None


# ---- estimated ---------------------------------------------------------------------------------------


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
