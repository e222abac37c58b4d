"""Draws a real run over a simulated one of the same arrivals: replicas, requests that wait, first tokens."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from loadtests.checks.autoscaling.comparison import Step
from loadtests.simulation.autoscaling.replicas import Outcome

COLOURS = {"real": "#0b6e4f", "simulated": "#c1121f"}


def draw(played: dict[str, Outcome], step: Step, ttft_objective_s: float, path: Path) -> None:
    """Three rows over the same seconds; `played` has the keys of `COLOURS`."""
    # Not an import statement: the picture is all that needs it.
    figure_class: Any = import_module("matplotlib.figure").Figure
    figure = figure_class(figsize=(10, 9), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True)
    seconds = list(range(int(step.duration_s) + 1))
    loads = [step.trace.load(second) for second in seconds]
    above.fill_between(seconds, loads, color="#dddddd", step="post", label="requests/s")
    for name, colour in COLOURS.items():
        outcome = played[name]
        above.step(*_steps(outcome.targets, step), where="post", color=colour, ls=":", alpha=0.8)
        above.step(*_steps(outcome.running, step), where="post", color=colour, label=name)
        middle.plot(seconds, waiting(outcome, seconds), color=colour, label=name)
        came = [(one.arrived_s, one.ttft_s) for one in outcome.requests]
        below.plot(*zip(*came, strict=True), ".", color=colour, ms=4, label=name)
    below.axhline(ttft_objective_s, color="#888888", lw=0.8)
    above.set(title="replicas that serve, and that are asked for (dotted)", ylim=(0, None))
    middle.set(title="requests without a first token")
    below.set(title="seconds to the first token", xlabel="seconds", ylim=(0, None))
    above.legend(loc="upper right")
    figure.savefig(path, dpi=110)


def waiting(outcome: Outcome, seconds: list[int]) -> list[int]:
    """Requests that have come and have no token yet, at each of these seconds."""
    spans = [(one.arrived_s, one.arrived_s + one.ttft_s) for one in outcome.requests]
    return [sum(came <= second < first for came, first in spans) for second in seconds]


def _steps(counts: list[tuple[float, int]], step: Step) -> tuple[list[float], list[int]]:
    ends = [*counts, (step.duration_s, counts[-1][1])]
    return [at_s for at_s, _ in ends], [count for _, count in ends]
