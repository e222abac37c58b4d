"""From a plan and capacities to replicas, nodes and a bill, under any set of assumptions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.plan.capacity import ClassCapacity, Hardware
from loadtests.plan.cost import MEAN, Bill, Fleet, bill
from loadtests.plan.demand import Pick, at, level, peak_rates
from loadtests.plan.model import Level, PlanConfig
from loadtests.plan.placement import Placed, place
from loadtests.plan.scaling import MOST_REPLICAS, fewest
from serving.errors import ConfigError

CAPACITY, E2E = "capacity", "e2e_s"


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """Of one model: how much comes, and what carries it. `load` is of the needed replicas, at the peak."""

    model: str
    hardware: Hardware
    peak_per_s: float
    replicas: Placed
    load: float
    mean_load: float
    mean_replicas: int

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas.total * self.hardware.gpus_per_replica


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that follows from a set of assumptions."""

    models: tuple[ModelPlan, ...]
    nodes: int
    gpus: int
    rates_per_s: Mapping[str, float]
    bill: Bill

    @property
    def replicas(self) -> int:
        """Of all models, spares included."""
        return sum(one.replicas.total for one in self.models)


def outcome(plan: PlanConfig, capacities: Mapping[str, ClassCapacity], pick: Pick) -> Outcome:
    """The needs of a plan.

    Raises:
        ConfigError: it needs more replicas than anybody has.
    """
    e2e_s = {name: one.e2e_s[level(pick, E2E)] for name, one in capacities.items()}
    rates = peak_rates(plan, e2e_s, pick)
    by_model = {
        kind.model: {
            one.name: capacities[one.name] for one in plan.traffic if one.model == kind.model
        }
        for kind in plan.traffic
    }
    chosen = level(pick, CAPACITY)
    hardware = {model: next(iter(mine.values())).hardware for model, mine in by_model.items()}
    needed = {
        model: replicas_needed(model, mine, rates, plan.utilisation, chosen)
        for model, mine in by_model.items()
    }
    placed, nodes, paid = _placed(plan, needed, hardware)
    mean = {name: rate * at(plan.mean_share, pick, MEAN) for name, rate in rates.items()}
    models = [
        ModelPlan(
            model=model,
            hardware=hardware[model],
            peak_per_s=sum(rates[name] for name in mine),
            replicas=placed[model],
            load=load_of(mine, rates, needed[model], chosen),
            mean_load=load_of(mine, mean, placed[model].total, chosen),
            mean_replicas=replicas_needed(model, mine, mean, plan.utilisation, chosen),
        )
        for model, mine in by_model.items()
    ]
    fleets = [Fleet(gpu, gpus, _mean_load(models, gpu) / gpus) for gpu, gpus in paid.items()]
    return Outcome(
        models=tuple(models),
        nodes=nodes,
        gpus=sum(one.gpus for one in models),
        rates_per_s=rates,
        bill=bill(plan, fleets, rates, pick),
    )


def _mean_load(models: Sequence[ModelPlan], gpu: str) -> float:
    """GPUs of a kind that are busy, as a mean."""
    return sum(one.gpus * one.mean_load for one in models if one.hardware.gpu == gpu)


def load_of(
    capacities: Mapping[str, ClassCapacity],
    rates_per_s: Mapping[str, float],
    replicas: int,
    chosen: Level,
) -> float:
    """How full so many replicas are: each class takes its rate over the highest rate of it alone."""
    return sum(
        rates_per_s[name] / one.rate_per_s(replicas, chosen) for name, one in capacities.items()
    )


def replicas_needed(
    model: str,
    capacities: Mapping[str, ClassCapacity],
    rates_per_s: Mapping[str, float],
    utilisation: float,
    chosen: Level,
) -> int:
    """The smallest number that is filled to `utilisation` at most.

    What is only probable never saves more than one replica against what is sure.

    Raises:
        ConfigError: more than anybody has.
    """

    def count(at_level: Level) -> int:
        found = fewest(
            # A little room for rounding, where the demand is exactly what they carry.
            lambda replicas: (
                load_of(capacities, rates_per_s, replicas, at_level) <= utilisation * (1 + 1e-9)
            )
        )
        if found is None:
            raise ConfigError(
                f"traffic: {model} would need more than {MOST_REPLICAS} replicas: check users, "
                "active_share and think_s",
                param="traffic",
            )
        return found

    if chosen == "typical":
        return max(count("typical"), count("low") - 1)
    return count(chosen)


def _placed(
    plan: PlanConfig, needed: Mapping[str, int], hardware: Mapping[str, Hardware]
) -> tuple[dict[str, Placed], int, dict[str, int]]:
    """Replicas with spares, nodes, and the GPUs that are paid for by kind: nodes hold one kind only."""
    placed: dict[str, Placed] = {}
    nodes, paid = 0, {}
    for gpu in dict.fromkeys(one.gpu for one in hardware.values()):
        mine = [model for model, one in hardware.items() if one.gpu == gpu]
        each = {model: hardware[model].gpus_per_replica for model in mine}
        group, count = place(
            {model: needed[model] for model in mine},
            each,
            plan.site.gpus_per_node,
            plan.spares,
            plan.failure_domain,
        )
        placed |= group
        nodes += count
        used = sum(group[model].total * each[model] for model in mine)
        paid[gpu] = count * plan.site.gpus_per_node if plan.site.billing == "node" else used
    return placed, nodes, paid
