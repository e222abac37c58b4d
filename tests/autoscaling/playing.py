"""Plays the reports of a model's replicas to the policy, as a controller would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serving.autoscaling.policy import Decision, ScalerState, decide
from serving.autoscaling.signals import ReplicaSignals, Signals
from serving.config.autoscaling import AutoscalingConfig

# A Monday, midnight in UTC.
MONDAY_S = 1_767_571_200.0


def replicas(count: int, **signals: float) -> dict[str, ReplicaSignals]:
    """So many replicas with the same load each."""
    return {f"r{number}": ReplicaSignals(**signals) for number in range(count)}


def ask(open_requests: float, current: int, *, now_s: float = MONDAY_S, **changes: Any) -> Decision:
    """One decision for a model of which no arrivals are known; all requests are in its first replica."""
    state = changes.pop("state", ScalerState())
    queued = changes.pop("queued", 0.0)
    loads = [open_requests] + [0.0] * (current - 1)
    signals = Signals(
        {f"r{n}": ReplicaSignals(open_requests=load) for n, load in enumerate(loads[:current])},
        running=current,
        target=current,
        queued=queued,
    )
    config = {"min": 0, "max": 4, "target_requests": 10, "hold_s": 60.0} | changes
    return decide(signals, AutoscalingConfig.model_validate(config), state, now_s)


@dataclass
class Model:
    """A model whose replicas finish what comes, at once and while there is room."""

    config: AutoscalingConfig
    running: int = 1
    residence_s: float = 8.0
    now_s: float = MONDAY_S
    state: ScalerState = field(default_factory=ScalerState)
    arrived: float = 0.0
    waiting: float = 0.0
    # What was decided, when it changed.
    changes: list[tuple[float, int, str]] = field(default_factory=list)
    last: Decision | None = None

    def play(self, seconds: int, arrivals_per_s: float, slots: int = 40) -> Decision:
        """Let so many seconds pass; replicas that are asked for are there at once."""
        for _ in range(seconds):
            room = slots * self.running
            self.arrived += arrivals_per_s
            wanted = arrivals_per_s * self.residence_s
            self.waiting = max(0.0, self.waiting + arrivals_per_s - room / self.residence_s)
            busy = room if self.waiting else min(wanted, room)
            share = 1 / max(1, self.running)
            each = ReplicaSignals(
                open_requests=(busy + self.waiting) * share,
                running=busy * share,
                waiting=self.waiting * share,
                arrived_requests=self.arrived * share,
            )
            signals = Signals(
                {f"r{n}": each for n in range(self.running)},
                running=self.running,
                target=self.running,
            )
            self.now_s += 1.0
            self.last = decide(signals, self.config, self.state, self.now_s)
            self.state = self.last.state
            if self.last.replicas != self.running:
                self.changes.append((self.now_s, self.last.replicas, self.last.reason))
                # Their counters begin anew when requests are spread anew.
                self.arrived = self.arrived * share * self.last.replicas
                self.running = self.last.replicas
        assert self.last is not None
        return self.last
