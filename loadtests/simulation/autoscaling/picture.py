"""Draws what policies did with traces: the load, replicas that run, and requests that were late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from loadtests.simulation.autoscaling.replicas import Outcome
from loadtests.simulation.autoscaling.traces import Trace

BIN_S = 10
# What is drawn; more lines would hide each other.
COLOURS = {"comptoir": "#0b6e4f", "ray default": "#c1121f", "ray, roomy": "#e09f3e"}


def is_possible() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(
    traces: Mapping[str, Trace],
    played: Mapping[str, Mapping[str, Outcome]],
    ttft_objective_s: float,
    path: Path,
) -> None:
    """One row per trace: replicas over the load on the left, requests that were late on the right."""
    # Not an import statement: the picture is all that needs it.
    figure_class: Any = import_module("matplotlib.figure").Figure
    figure = figure_class(figsize=(12, 3.2 * len(played)), layout="constrained")
    axes = figure.subplots(len(played), 2, squeeze=False)
    for (left, right), (name, outcomes) in zip(axes, played.items(), strict=True):
        trace = traces[name]
        minutes = [second / 60 for second in range(0, int(trace.duration_s), BIN_S)]
        loads = [trace.load(minute * 60) for minute in minutes]
        left.fill_between(minutes, loads, color="#dddddd", step="post", label="load")
        for policy, colour in COLOURS.items():
            outcome = outcomes[policy]
            ends = [*outcome.running, (trace.duration_s, outcome.running[-1][1])]
            times, counts = [at / 60 for at, _ in ends], [count for _, count in ends]
            left.step(times, counts, where="post", color=colour, label=policy)
            late = late_shares(outcome, ttft_objective_s, trace.duration_s)
            right.plot(minutes[: len(late)], late, color=colour, label=policy)
        left.set(title=name, xlabel="minutes", ylabel="replicas running; load")
        right.set(
            title=f"{name}: requests with TTFT over {ttft_objective_s:g} s",
            xlabel="minutes",
            ylabel="share",
            ylim=(0, 1.05),
        )
        left.legend(loc="upper left")
    figure.savefig(path, dpi=110)


def late_shares(outcome: Outcome, ttft_objective_s: float, duration_s: float) -> list[float]:
    """Share of late requests among those that came in each ten seconds."""
    came: Counter[int] = Counter()
    late: Counter[int] = Counter()
    for request in outcome.requests:
        part = int(request.arrived_s // BIN_S)
        came[part] += 1
        late[part] += request.ttft_s > ttft_objective_s
    return [
        late[part] / came[part] if came[part] else 0.0 for part in range(int(duration_s // BIN_S))
    ]
