"""Capacity from sweeps: which of them count, what lies between them, and which one is missing. Pure.

Sweeps must bound the lengths of a class: nothing is extrapolated, and the error names the sweep to run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from loadtests.plan.capacity import ClassCapacity, Hardware, sweep_command
from loadtests.plan.interpolate import Band, LengthPoint, along, gap, interpolate
from loadtests.plan.model import HostedConfig, Level, PlanConfig, TrafficConfig
from loadtests.plan.scaling import Limit, Scaling
from loadtests.plan.sweeps import Measured
from loadtests.workload.scenario import SloConfig
from serving.errors import ConfigError

Rate = Literal["held_per_s", "likely_per_s", "failed_per_s"]
METRICS = ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms")
# A long request over the mean one, where neither plan nor sweep says it.
LONG_REQUEST = 1.5
# Runs in which each place was taken less often hold rates that a longer one would not.
ENOUGH_TURNS = 30


def measured_capacity(
    plan: PlanConfig, kind: TrafficConfig, hosted: HostedConfig, sweeps: Sequence[Measured]
) -> ClassCapacity:
    """What replicas carry of a class by the sweeps of its model.

    Raises:
        ConfigError: none was run on this hardware, with this SLO, or with requests this long or short.
    """
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
    # Short runs count only where nothing else does.
    long = [one for one in strict if one.turns >= ENOUGH_TURNS]
    inside = _inside(kind, long) or _inside(kind, strict)
    if not inside:
        raise _out_of_range(kind, hardware, strict)
    limits = [_limit(kind, count, group, plan.utilisation) for count, group in inside.items()]
    base = inside[min(inside)]
    used = [one for group in inside.values() for one in group]
    return ClassCapacity(
        basis="measured",
        hardware=hardware,
        scaling=Scaling.of(limits),
        e2e_s=_e2e_s(kind, base, plan.utilisation),
        slo=kind.slo or strict[0].slo,
        slots=_slots(kind, hosted, base),
        sources=tuple(one.where for one in used),
        short_sweeps=tuple(one.where for one in strict if one.turns < ENOUGH_TURNS),
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


def long_enough_s(e2e_s: float) -> float:
    """How long runs have to be at least; a fifth of each is warm-up at most."""
    return 1.25 * ENOUGH_TURNS * e2e_s


def wanted_s(one: Measured) -> float | None:
    """How long the runs of a sweep should have been at its rate; None: they were long enough."""
    return None if one.turns >= ENOUGH_TURNS else long_enough_s(one.e2e_s[-1][1])


def _inside(kind: TrafficConfig, sweeps: Sequence[Measured]) -> dict[int, list[Measured]]:
    """Sweeps by number of replicas, of the numbers whose sweeps bound the lengths of the class."""
    groups: dict[int, list[Measured]] = {}
    for one in sweeps:
        groups.setdefault(one.replicas, []).append(one)
    return {count: group for count, group in groups.items() if _gap(kind, group) is None}


def _gap(kind: TrafficConfig, group: Sequence[Measured]) -> str | None:
    return gap(_points(group, "held_per_s"), kind.input_tokens, kind.output_tokens)


def _out_of_range(
    kind: TrafficConfig, hardware: Hardware, sweeps: Sequence[Measured]
) -> ConfigError:
    count = min(one.replicas for one in sweeps)
    group = [one for one in sweeps if one.replicas == count]
    side = "long" if _gap(kind, group) == "longer" else "short"
    lengths = ", ".join(f"{one.input_tokens:.0f}+{one.output_tokens:.0f}" for one in group)
    wanted = f"{kind.input_tokens:g} input and {kind.output_tokens:g} output tokens"
    return ConfigError(
        f"traffic.{kind.name}: {wanted} are outside what was measured of {kind.model} on {hardware} "
        f"(input+output: {lengths}): a sweep of requests at least as {side} is "
        f"missing: run {sweep_command(kind.input_tokens, kind.output_tokens, hardware, count)} with a "
        f"scenario that asks {kind.model}",
        param=f"traffic.{kind.name}",
    )


def _points(group: Sequence[Measured], what: Rate) -> list[LengthPoint]:
    return [
        LengthPoint(one.input_tokens, one.output_tokens, getattr(one, what) or math.inf)
        for one in group
    ]


def _limit(
    kind: TrafficConfig, replicas: int, group: Sequence[Measured], utilisation: float
) -> Limit:
    held, likely = (_band(kind, group, what) for what in ("held_per_s", "likely_per_s"))
    # Where a sweep ended before anything failed, nobody knows what more they carry.
    open_ended = any(one.failed_per_s is None for one in group)
    most = math.inf if open_ended else _band(kind, group, "failed_per_s").high
    e2e_s = _e2e_s(kind, group, utilisation)
    return Limit(
        replicas=replicas,
        sure_per_s=min(held.low, likely.low),
        likely_per_s=likely.middle,
        most_per_s=max(most, likely.middle),
        in_flight=likely.middle * e2e_s["high"],
    )


def _band(kind: TrafficConfig, group: Sequence[Measured], what: Rate) -> Band:
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
