"""A real run beside simulated ones of the same arrivals: figures of each, and a table of both. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from rich.table import Table

from loadtests.analysis.stats import percentile
from loadtests.simulation.autoscaling.policies import SignalsScaler
from loadtests.simulation.autoscaling.replicas import Fleet, Outcome, ReplicaModel
from loadtests.simulation.autoscaling.traces import Trace
from loadtests.simulation.compare_autoscaling import Scenario, score
from serving.config.autoscaling import AutoscalingConfig


@dataclass(frozen=True)
class Step:
    """A load that steps up and down again."""

    low_per_s: float
    high_per_s: float
    begin_s: float
    end_s: float
    duration_s: float

    @property
    def trace(self) -> Trace:
        """As the simulator has it, in requests per second."""
        return Trace("real", self.duration_s, self._load, step_s=self.begin_s)

    def _load(self, now_s: float) -> float:
        return self.high_per_s if self.begin_s <= now_s < self.end_s else self.low_per_s


@dataclass(frozen=True)
class Figures:
    """What is compared; infinite where it never happened. Times count from the step's beginning or end."""

    decision_s: float
    second_serves_s: float
    all_serve_s: float
    most_replicas: float
    changes: float
    # From the end of the step to the first replica that is given up.
    gives_up_s: float
    replica_s: float
    lost_s: float
    # Of requests that came in the step.
    ttft_p50_s: float
    ttft_p99_s: float


TITLES = {
    "decision_s": "decision after the step, s",
    "second_serves_s": "second replica serves, s",
    "all_serve_s": "last of its replicas serves, s",
    "most_replicas": "most replicas",
    "changes": "changes of the number",
    "gives_up_s": "gives up a replica, s after it",
    "replica_s": "replica-seconds",
    "lost_s": "seconds lost",
    "ttft_p50_s": "TTFT in the step, p50, s",
    "ttft_p99_s": "TTFT in the step, p99, s",
}


def figures(outcome: Outcome, step: Step, ttft_objective_s: float) -> Figures:
    """Of one run, real or simulated."""
    scored = score(outcome, step.trace, Scenario(ttft_objective_s=ttft_objective_s))
    most = max(count for _, count in outcome.targets)
    downs = [
        at_s
        for (_, before), (at_s, after) in pairwise(outcome.targets)
        if at_s >= step.end_s and after < before
    ]
    ttfts = [one.ttft_s for one in outcome.requests if step.begin_s <= one.arrived_s < step.end_s]
    return Figures(
        decision_s=math.inf if scored.decision_s is None else scored.decision_s,
        second_serves_s=_reached(outcome, 2, step.begin_s),
        all_serve_s=_reached(outcome, most, step.begin_s),
        most_replicas=most,
        changes=scored.changes,
        gives_up_s=downs[0] - step.end_s if downs else math.inf,
        replica_s=outcome.replica_s,
        lost_s=scored.lost_s,
        ttft_p50_s=percentile(ttfts, 50),
        ttft_p99_s=percentile(ttfts, 99),
    )


def _reached(outcome: Outcome, count: int, since_s: float) -> float:
    """The time at which that many replicas served."""
    times = (at_s for at_s, running in outcome.running if running >= count)
    return next(times, math.inf) - since_s


def replay(
    arrivals_s: Sequence[float],
    model: ReplicaModel,
    config: AutoscalingConfig,
    *,
    duration_s: float,
    idle_s: float,
    seed: int,
) -> Outcome:
    """The same arrivals on simulated replicas, after `idle_s` without any; the seed shifts the reports."""
    fleet = Fleet(model, config.min, seed)
    shifted = [at_s + idle_s for at_s in arrivals_s]
    outcome = fleet.run(shifted, SignalsScaler(config, seed), duration_s + idle_s)
    for request in outcome.requests:
        request.arrived_s -= idle_s
    return replace(
        outcome,
        targets=_earlier(outcome.targets, idle_s),
        running=_earlier(outcome.running, idle_s),
        replica_s=outcome.replica_s - config.min * idle_s,
    )


def _earlier(counts: Sequence[tuple[float, int]], by_s: float) -> list[tuple[float, int]]:
    return [(max(0.0, at_s - by_s), count) for at_s, count in counts]


def table(real: Figures, simulated: Sequence[Figures]) -> Table:
    """Each figure as measured, and as simulated: the median, the least and the most."""
    made = Table("", *("real", "simulated", "from", "to"), box=None, pad_edge=False)
    for column in made.columns[1:]:
        column.justify = "right"
    for name, title in TITLES.items():
        values = sorted(getattr(one, name) for one in simulated)
        cells = (getattr(real, name), median(values), values[0], values[-1])
        made.add_row(title, *map(_cell, cells))
    return made


def _cell(value: float) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:g}" if value == int(value) else f"{value:.1f}"


def changes_of(outcome: Outcome) -> str:
    """Each change of the number of replicas that was asked for, with its time."""
    return ", ".join(f"{count} at {at_s:.0f} s" for at_s, count in outcome.targets)
