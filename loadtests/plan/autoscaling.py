"""The plan as configuration of models: `replicas:` of serving.settings.ModelConfig, ready to paste. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from loadtests.plan.capacity import ClassCapacity
from loadtests.plan.model import CPU, PlanConfig
from loadtests.plan.planner import ModelPlan, Outcome
from serving.config.autoscaling import AutoscalingConfig
from serving.config.base import validated
from serving.errors import ConfigError

MOST_REPLICAS = 1024


def model_args(
    plan: PlanConfig,
    capacities: Mapping[str, ClassCapacity],
    now: Outcome,
    *,
    autoscaling: bool,
) -> list[dict[str, Any]]:
    """Arguments of each model's application.

    Without `autoscaling` the number of replicas is fixed. With it, they follow the load between what its mean
    needs and the plan's total, with the plan's spares.

    Raises:
        ConfigError: there are more replicas than a model may have.
    """
    found = []
    for one in now.models:
        replicas = _following(plan, capacities, one) if autoscaling else _fixed(one)
        validated(AutoscalingConfig, replicas, f"models.{one.model}: replicas")
        found.append(_hosted(plan, one) | {"replicas": replicas})
    return found


def _hosted(plan: PlanConfig, one: ModelPlan) -> dict[str, Any]:
    args: dict[str, Any] = {"id": one.model}
    hosted = plan.hosted(one.model)
    if hosted.catalogue:
        args["catalogue"] = hosted.catalogue
    if one.hardware.gpu == CPU:
        return args | {"device": "cpu"}
    return args | {"device": "gpu", "gpu": one.hardware.gpu}


def _total(one: ModelPlan) -> int:
    total = one.replicas.total
    if total > MOST_REPLICAS:
        raise ConfigError(
            f"traffic: {one.model} needs {total} replicas, and a model may have {MOST_REPLICAS} at "
            "most: take more GPUs per replica, or host it twice under two names",
            param="traffic",
        )
    return total


def _fixed(one: ModelPlan) -> dict[str, Any]:
    return {"min": _total(one), "max": _total(one)}


def as_yaml(args: list[dict[str, Any]], header: list[str]) -> str:
    """A commented list of arguments: one document per model."""
    comment = "".join(f"# {line}\n" for line in header)
    return comment + "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in args)


def _following(
    plan: PlanConfig, capacities: Mapping[str, ClassCapacity], one: ModelPlan
) -> dict[str, Any]:
    mine = {kind.name: capacities[kind.name] for kind in plan.traffic if kind.model == one.model}
    spare = one.replicas.spare
    replicas: dict[str, Any] = {
        "min": max(1, min(one.mean_replicas + spare, _total(one))),
        "max": _total(one),
        "target_requests": round(_in_flight(plan, mine, one), 1),
    }
    if spare:
        replicas["spare"] = spare
    first = [each.slo.ttft_ms for each in mine.values() if each.slo.ttft_ms is not None]
    gaps = [each.slo.itl_ms or each.slo.tpot_ms for each in mine.values()]
    if first:
        replicas["ttft_objective_s"] = min(first) / 1000
    known = [gap for gap in gaps if gap is not None]
    if known:
        replicas["itl_objective_s"] = min(known) / 1000
    return replicas


def _in_flight(plan: PlanConfig, mine: Mapping[str, ClassCapacity], one: ModelPlan) -> float:
    """Requests on a replica that is as full as planned, by Little's law; classes in the plan's proportion."""
    needed = one.replicas.needed
    total = sum(plan.share_of(kind) for kind in plan.traffic if kind.name in mine)
    # As many replicas per request as the classes take on average: the highest rate of the mix.
    taken = sum(
        plan.share_of(kind) / total / mine[kind.name].rate_per_s(needed, "typical")
        for kind in plan.traffic
        if kind.name in mine
    )
    mean_s = sum(
        plan.share_of(kind) / total * mine[kind.name].e2e_s["typical"]
        for kind in plan.traffic
        if kind.name in mine
    )
    return max(0.1, plan.utilisation / taken * mean_s / needed)
