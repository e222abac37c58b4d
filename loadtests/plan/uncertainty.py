"""The certainty of a plan: its bounds, its strongest assumption, and the measurement to settle it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from loadtests.plan import cost, demand
from loadtests.plan.capacity import ClassCapacity, Hardware, sweep_command
from loadtests.plan.measured import long_enough_s
from loadtests.plan.model import LEVELS, Level, PlanConfig, Span, TrafficConfig
from loadtests.plan.planner import (
    CAPACITY,
    E2E,
    ModelPlan,
    Outcome,
    load_of,
    outcome,
    replicas_needed,
)


def _mean(per: cost.PerToken | None) -> float | None:
    return None if per is None else per.mean


Metric = Callable[[Outcome], float | None]
METRICS: Mapping[str, Metric] = {
    "replicas": lambda one: float(one.replicas),
    "gpus": lambda one: float(one.gpus),
    "nodes": lambda one: float(one.nodes),
    "eur_per_month": lambda one: one.bill.eur,
    "eur_per_mtok": lambda one: one.bill.eur_per_mtok.mean,
    "eur_per_mtok_input": lambda one: one.bill.eur_per_mtok.input,
    "eur_per_mtok_output": lambda one: one.bill.eur_per_mtok.output,
    "kwh_per_month": lambda one: one.bill.kwh,
    "kwh_per_mtok": lambda one: _mean(one.bill.kwh_per_mtok),
    "kg_co2e_per_month": lambda one: one.bill.kg_co2e,
    "gco2e_per_mtok": lambda one: _mean(one.bill.gco2e_per_mtok),
}
# Assumptions that move the result the same way go together into a corner; the others are crossed.
MORE_DEMAND = (demand.USERS, demand.ACTIVE, demand.RATE, demand.PEAK, demand.GROWTH)
LESS_DEMAND = (demand.THINK, E2E)
ENERGY = (cost.PUE, cost.IDLE, cost.BUSY, cost.OVERHEAD, cost.BOARD, cost.GRID)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A figure with all assumptions as they are usually, and at their two worst."""

    lower: float
    typical: float
    upper: float


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of one assumption on every figure, all others as usual: values at its low and high end."""

    assumption: str
    at_low: Mapping[str, float | None]
    at_high: Mapping[str, float | None]

    def swing(self, metric: str) -> float:
        """How far the figure moves."""
        low, high = self.at_low[metric], self.at_high[metric]
        return 0.0 if low is None or high is None else abs(high - low)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A model whose number of replicas measurements leave open; `sweep` says what would settle it."""

    model: str
    fewest: int
    most: int
    replicas: int
    rate_per_s: float
    sweep: str
    is_measured: bool


def assumptions(
    plan: PlanConfig, capacities: Mapping[str, ClassCapacity], now: Outcome
) -> list[str]:
    """Names of the inexact assumptions."""
    gpus = {one.hardware.gpu for one in now.models}
    open_ = [
        name
        for name, values in _spans(plan, gpus).items()
        if any(one is not None and not one.is_exact for one in values)
    ]
    if not plan.growth.is_exact:
        open_.append(demand.GROWTH)
    if any(
        one.rate_per_s(count, "low") < one.rate_per_s(count, "high")
        for one in capacities.values()
        for count in (1, max(2, now.replicas))
    ):
        open_.append(CAPACITY)
    if plan.users and any(one.e2e_s["low"] < one.e2e_s["high"] for one in capacities.values()):
        open_.append(E2E)
    return open_


def _spans(plan: PlanConfig, gpus: Iterable[str]) -> Mapping[str, Sequence[Span | None]]:
    """What the plan itself gives as a span, or may."""
    site = plan.site
    return {
        demand.USERS: [plan.users],
        demand.ACTIVE: [plan.active_share],
        demand.RATE: [plan.rate_per_s],
        demand.PEAK: [plan.peak_factor],
        demand.THINK: [one.think_s for one in plan.traffic] if plan.users else [],
        cost.PRICE: [cost.price_of(plan, gpu) for gpu in gpus],
        cost.MEAN: [plan.mean_share],
        cost.PUE: [site.pue],
        cost.IDLE: [site.idle_share],
        cost.BUSY: [site.busy_share],
        cost.OVERHEAD: [site.overhead_w],
        cost.BOARD: [cost.board_of(plan, gpu) for gpu in gpus],
        cost.GRID: [site.intensity],
    }


def effects(
    plan: PlanConfig, capacities: Mapping[str, ClassCapacity], now: Outcome
) -> list[Effect]:
    """One assumption at a time, the strongest on the monthly bill first."""
    found = []
    for name in assumptions(plan, capacities, now):
        low, high = (outcome(plan, capacities, {name: end}) for end in ("low", "high"))
        found.append(Effect(name, figures(low), figures(high)))
    return sorted(
        found,
        key=lambda one: (-one.swing("eur_per_month"), -one.swing("eur_per_mtok"), one.assumption),
    )


def dominant(found: Sequence[Effect], metric: str) -> str | None:
    """The assumption that moves a figure most; None where nothing does."""
    best = max(found, key=lambda one: one.swing(metric), default=None)
    return best.assumption if best is not None and best.swing(metric) > 0 else None


def bounds(
    plan: PlanConfig, capacities: Mapping[str, ClassCapacity], now: Outcome
) -> dict[str, Bounds]:
    """Every figure over the corners of all assumptions together."""
    corners = [figures(outcome(plan, capacities, pick)) for pick in _corners()]
    found = {}
    for metric, typical in figures(now).items():
        values = [one[metric] for one in corners]
        known = [one for one in values if one is not None]
        if typical is not None and known:
            found[metric] = Bounds(min(*known, typical), typical, max(*known, typical))
    return found


def figures(one: Outcome) -> dict[str, float | None]:
    """All figures that have bounds."""
    return {name: metric(one) for name, metric in METRICS.items()}


def unsettled(
    plan: PlanConfig, capacities: Mapping[str, ClassCapacity], now: Outcome
) -> list[Unsettled]:
    """Models of which sweeps of one more number of replicas would tell how many are needed.

    Demand is taken as it usually is: what it may be otherwise, no sweep can say.
    """
    found = (_unsettled(plan, capacities, now, one) for one in now.models)
    return [one for one in found if one is not None]


def _unsettled(
    plan: PlanConfig, capacities: Mapping[str, ClassCapacity], now: Outcome, one: ModelPlan
) -> Unsettled | None:
    """None: the number is settled, or no sweep would settle it."""
    mine = {kind.name: capacities[kind.name] for kind in plan.traffic if kind.model == one.model}
    counts = {
        level: replicas_needed(one.model, mine, now.rates_per_s, plan.utilisation, level)
        for level in LEVELS
    }
    measured = set.intersection(*(set(each.measured_replicas) for each in mine.values()))
    replicas = _worth_measuring(counts, measured)
    if replicas is None:
        return None
    # The largest class stands for the mix, at the rate that fills the replicas as much.
    kind = max((each for each in plan.traffic if each.name in mine), key=plan.share_of)
    load = load_of(mine, now.rates_per_s, replicas, "typical")
    rate = load * mine[kind.name].rate_per_s(replicas, "typical") / plan.utilisation
    duration_s = max(60.0, long_enough_s(mine[kind.name].e2e_s["high"]))
    return Unsettled(
        model=one.model,
        fewest=counts["high"],
        most=counts["low"],
        replicas=replicas,
        rate_per_s=rate,
        sweep=_sweep(kind, one.hardware, replicas, rate if measured else None, duration_s),
        is_measured=bool(measured),
    )


def _worth_measuring(counts: Mapping[Level, int], measured: set[int]) -> int | None:
    """A number of replicas that was not measured, and whose sweep would tell how many are needed."""
    if counts["low"] == counts["high"]:
        return None
    wanted = (counts["typical"], counts["typical"] - 1, counts["low"]) if measured else (1,)
    return next((count for count in wanted if count >= 1 and count not in measured), None)


def _sweep(
    kind: TrafficConfig, hardware: Hardware, replicas: int, rate: float | None, duration_s: float
) -> str:
    command = sweep_command(kind.input_tokens, kind.output_tokens, hardware, replicas)
    if rate is None:
        return command
    around = f"--from {0.9 * rate:.3g} --to {1.1 * rate:.3g} --precision 0.01"
    return f"{command[:-1]} {around} --duration {math.ceil(duration_s)}`"


def _corners() -> Iterator[dict[str, Level]]:
    opposite: dict[Level, Level] = {"low": "high", "high": "low"}
    ends: tuple[Level, ...] = ("low", "high")
    for load, capacity, price, mean, energy in product(ends, repeat=5):
        pick: dict[str, Level] = dict.fromkeys(MORE_DEMAND, load)
        pick |= dict.fromkeys(LESS_DEMAND, opposite[load])
        pick |= dict.fromkeys(ENERGY, energy)
        yield pick | {CAPACITY: capacity, cost.PRICE: price, cost.MEAN: mean}
