"""Compares the autoscaling policy with Ray Serve's default one on simulated replicas.

    python -m loadtests.simulation.compare_autoscaling --trace step --picture step.png

A second is lost when more than five percent of the requests that came in it got their first token later
than the objective, or never. Replica-hours count from the moment a replica is asked for until it has ended.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loadtests.simulation.autoscaling import picture as drawing
from loadtests.simulation.autoscaling.policies import RayScaler, SignalsScaler
from loadtests.simulation.autoscaling.replicas import Fleet, Outcome, ReplicaModel, Scaler
from loadtests.simulation.autoscaling.traces import TRACES, Trace
from serving.commands.output import note, run, show
from serving.config.autoscaling import AutoscalingConfig
from serving.errors import ConfigError

LOST_SHARE = 0.05
# Of the targets from 20 to 40 requests, 20 loses Ray's default the fewest seconds in the step.
ROOMY = 20 / 32
ALL = "all"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Scenario:
    """The conditions that are equal for all policies."""

    model: ReplicaModel = field(default_factory=ReplicaModel)
    # Requests per second at a load of one: five sixths of what a replica serves at `target_requests`.
    base_per_s: float = 3.0
    max_replicas: int = 16
    target_requests: float = 32.0
    ttft_objective_s: float = 2.0
    seed: int = 1


@dataclass(frozen=True)
class Score:
    """The score of a policy."""

    lost_s: int
    # Share of all requests whose first token was late.
    late_share: float
    replica_hours: float
    most_replicas: int
    # How often the number of replicas changed, and how often it turned from growing to shrinking or back.
    changes: int
    turns: int
    # Seconds from the step of the load to the first decision after it.
    decision_s: float | None


def ours(trace: Trace, scenario: Scenario) -> Scaler:
    """Our policy, with its defaults."""
    config = AutoscalingConfig(
        min=trace.min_replicas,
        max=scenario.max_replicas,
        target_requests=scenario.target_requests,
        ttft_objective_s=scenario.ttft_objective_s,
    )
    return SignalsScaler(config, scenario.seed)


def ray_default(trace: Trace, scenario: Scenario) -> Scaler:
    """Ray's default policy and delays, with the same target as ours."""
    return RayScaler(
        scenario.target_requests, trace.min_replicas, scenario.max_replicas, scenario.seed
    )


def ray_roomy(trace: Trace, scenario: Scenario) -> Scaler:
    """Ray's default policy and delays, with the target that serves it best in the step."""
    return RayScaler(
        ROOMY * scenario.target_requests, trace.min_replicas, scenario.max_replicas, scenario.seed
    )


def ray_quick(trace: Trace, scenario: Scenario) -> Scaler:
    """Ray's default policy, set to see and to act as quickly as ours."""
    return RayScaler(
        scenario.target_requests,
        trace.min_replicas,
        scenario.max_replicas,
        scenario.seed,
        upscale_delay_s=0.0,
        downscale_delay_s=300.0,
        metrics_interval_s=1.0,
        look_back_period_s=2.0,
    )


POLICIES: dict[str, Callable[[Trace, Scenario], Scaler]] = {
    "comptoir": ours,
    "ray default": ray_default,
    "ray, roomy": ray_roomy,
    "ray, quick": ray_quick,
}


def play(trace: Trace, policy: str, scenario: Scenario) -> Outcome:
    """One trace through one policy; the arrivals and the answers' lengths depend on the seed alone."""
    fleet = Fleet(scenario.model, trace.start_replicas, scenario.seed)
    arrivals = trace.arrivals(scenario.base_per_s, scenario.seed)
    return fleet.run(arrivals, POLICIES[policy](trace, scenario), trace.duration_s)


def score(outcome: Outcome, trace: Trace, scenario: Scenario) -> Score:
    """SLO-seconds lost, requests that were late, replica-hours, changes."""
    seconds: dict[int, list[bool]] = defaultdict(list)
    for request in outcome.requests:
        seconds[int(request.arrived_s)].append(request.ttft_s > scenario.ttft_objective_s)
    step_s = trace.step_s if trace.step_s is not None else math.inf
    reactions = [time_s - step_s for time_s, _ in outcome.targets if time_s >= step_s]
    ups = [after > before for (_, before), (_, after) in pairwise(outcome.targets)]
    return Score(
        lost_s=sum(sum(late) > LOST_SHARE * len(late) for late in seconds.values()),
        late_share=sum(map(sum, seconds.values())) / max(1, len(outcome.requests)),
        replica_hours=outcome.replica_s / 3600,
        most_replicas=max(count for _, count in outcome.targets),
        changes=len(ups),
        turns=sum(one != other for one, other in pairwise(ups)),
        decision_s=reactions[0] if reactions else None,
    )


HEAD = (
    *("trace", "policy", "lost s", "late", "replica-h"),
    *("most", "changes", "turns", "decides"),
)


def row(trace: Trace, policy: str, scored: Score) -> tuple[str, ...]:
    """One line of the table."""
    decides = "" if scored.decision_s is None else f"{scored.decision_s:.1f} s"
    counts = (str(scored.most_replicas), str(scored.changes), str(scored.turns))
    costs = (str(scored.lost_s), f"{scored.late_share:.1%}", f"{scored.replica_hours:.2f}")
    return (trace.name, policy, *costs, *counts, decides)


@app.command()
def compare_autoscaling(
    trace: Annotated[
        str, typer.Option(metavar="NAME", help=f"One of {', '.join(TRACES)}, or all.")
    ] = ALL,
    cold_start: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Seconds that a replica takes to start.")
    ] = 30.0,
    most: Annotated[
        int, typer.Option("--max", metavar="REPLICAS", min=1, help="Largest number of replicas.")
    ] = 16,
    target: Annotated[
        float, typer.Option(metavar="REQUESTS", help="Target of requests per replica.")
    ] = 32.0,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(metavar="PATH", help="File for a picture of the runs (PNG, SVG).")
    ] = None,
) -> None:
    """Compare the autoscaling policy with Ray Serve's default one on simulated replicas.

    Example: python -m loadtests.simulation.compare_autoscaling --trace step --picture step.png
    """
    if trace not in (*TRACES, ALL):
        raise ConfigError(f"--trace: '{trace}' is unknown; known: {', '.join(TRACES)}, {ALL}")
    if picture is not None and not drawing.is_possible():
        raise ConfigError("--picture: it needs matplotlib: pip install matplotlib")
    scenario = Scenario(
        model=replace(ReplicaModel(), cold_start_s=cold_start),
        max_replicas=most,
        target_requests=target,
        seed=seed,
    )
    traces = {name: TRACES[name]() for name in (TRACES if trace == ALL else [trace])}
    played = {name: _play_all(one, scenario) for name, one in traces.items()}
    table = Table(*HEAD, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for name, outcomes in played.items():
        for policy, outcome in outcomes.items():
            table.add_row(*row(traces[name], policy, score(outcome, traces[name], scenario)))
    show(table)
    if picture is not None:
        drawing.draw(traces, played, scenario.ttft_objective_s, picture)


def _play_all(trace: Trace, scenario: Scenario) -> dict[str, Outcome]:
    """The trace through every policy."""
    played = {}
    for policy in POLICIES:
        note(f"{trace.name}: {policy} ...")
        played[policy] = play(trace, policy, scenario)
    return played


if __name__ == "__main__":
    run(app)
