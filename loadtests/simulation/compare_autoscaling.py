"""Compares the autoscaling policy with Ray Serve's default one on simulated replicas.

    python -m loadtests.simulation.compare_autoscaling --trace step --picture step.png

A second is lost when more than five percent of the requests that came in it got their first token later
than the objective, or never. Replica-hours count from the moment a replica is asked for until it has ended.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from loadtests.simulation.autoscaling import picture
from loadtests.simulation.autoscaling.policies import RayScaler, SignalsScaler
from loadtests.simulation.autoscaling.replicas import Fleet, Outcome, ReplicaModel, Scaler
from loadtests.simulation.autoscaling.traces import TRACES, Trace
from serving.config.autoscaling import AutoscalingConfig

LOST_SHARE = 0.05
# Of the targets from 20 to 40 requests, 20 loses Ray's default the fewest seconds in the step.
ROOMY = 20 / 32


@dataclass(frozen=True)
class Scenario:
    """What is equal for all policies."""

    model: ReplicaModel = field(default_factory=ReplicaModel)
    # Requests per second at a load of one: five sixths of what a replica serves at `target_requests`.
    base_per_s: float = 3.0
    max_replicas: int = 16
    target_requests: float = 32.0
    ttft_objective_s: float = 2.0
    seed: int = 1


@dataclass(frozen=True)
class Score:
    """What a policy achieved."""

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
    f"{'trace':8} {'policy':12} {'lost s':>7} {'late':>7} {'replica-h':>10} "
    f"{'most':>5} {'changes':>8} {'turns':>6} {'decides':>8}"
)


def row(trace: Trace, policy: str, scored: Score) -> str:
    """One line of the table."""
    decides = "" if scored.decision_s is None else f"{scored.decision_s:.1f} s"
    return (
        f"{trace.name:8} {policy:12} {scored.lost_s:7} {scored.late_share:7.1%} "
        f"{scored.replica_hours:10.2f} {scored.most_replicas:5} {scored.changes:8} "
        f"{scored.turns:6} {decides:>8}"
    ).rstrip()


def arguments_of(command_line: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.simulation.compare_autoscaling",
        description=str(__doc__).partition("\n")[0],
    )
    parser.add_argument("--trace", choices=[*TRACES, "all"], default="all")
    parser.add_argument("--cold-start", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--max", type=int, default=16, metavar="REPLICAS")
    parser.add_argument(
        "--target", type=float, default=32.0, metavar="REQUESTS", help="that a replica should have"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals")
    parser.add_argument(
        "--picture", type=Path, metavar="PATH", help="draw what happened (PNG, SVG)"
    )
    return parser.parse_args(command_line)


def main(command_line: Sequence[str] | None = None) -> int:
    """The command: prints the table, draws the picture."""
    chosen = arguments_of(command_line)
    scenario = Scenario(
        model=replace(ReplicaModel(), cold_start_s=chosen.cold_start),
        max_replicas=chosen.max,
        target_requests=chosen.target,
        seed=chosen.seed,
    )
    if chosen.picture is not None and not picture.is_possible():
        print("a picture needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 2
    played: dict[str, dict[str, Outcome]] = {}
    print(HEAD)
    for name in TRACES if chosen.trace == "all" else [chosen.trace]:
        trace = TRACES[name]()
        for policy in POLICIES:
            outcome = play(trace, policy, scenario)
            played.setdefault(name, {})[policy] = outcome
            print(row(trace, policy, score(outcome, trace, scenario)), flush=True)
    if chosen.picture is not None:
        traces = {name: TRACES[name]() for name in played}
        picture.draw(traces, played, scenario.ttft_objective_s, chosen.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
