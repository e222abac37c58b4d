"""How many requests one replica can work on: learned from when requests begin to wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from serving.autoscaling.signals import ReplicaSignals, Signals
from serving.config.autoscaling import AutoscalingConfig

# A replica is meant to have this share of the requests at which others begin to wait.
UTILISATION = 0.85
# So many samples in a row must show the same: one step of a scheduler may leave requests waiting.
SURE_AFTER = 3
LEARNING_RATE = 0.2
# What was learned in a hard hour is forgotten at this pace.
FORGET_S = 7200.0
# How far learning may go from `target_requests`, as factors.
LEAST, MOST = 1 / 8, 4.0


@dataclass(frozen=True)
class Capacity:
    """The measured capacity of a replica."""

    # Requests being worked on at which others begin to wait; None while nothing was learned.
    knee: float | None = None
    # By replica: samples in a row in which it was beyond its capacity.
    over: Mapping[str, int] = field(default_factory=dict)

    def requests(self, config: AutoscalingConfig) -> float:
        """Requests that one replica should have open."""
        if self.knee is None:
            return config.target_requests
        return self.knee * UTILISATION

    def learn(self, signals: Signals, config: AutoscalingConfig, passed_s: float) -> Capacity:
        """The capacity after one more look at the replicas, `passed_s` after the last one.

        The estimate begins at `target_requests` and falls to where requests begin to wait or tokens come
        slower than the ITL objective. It rises to what replicas carry without either; above
        `target_requests` only where an ITL objective says how far that may go.
        """
        prior = config.target_requests / UTILISATION
        knee = self.knee if self.knee is not None else prior
        over = {
            name: self.over.get(name, 0) + 1
            for name, replica in signals.replicas.items()
            if _limit(replica, config) is not None
        }
        limits = [
            limit
            for name, count in over.items()
            if count >= SURE_AFTER and (limit := _limit(signals.replicas[name], config)) is not None
        ]
        carried = max((r.busy for n, r in signals.replicas.items() if n not in over), default=0.0)
        if limits:
            knee += LEARNING_RATE * (median(limits) - knee)
        elif carried > knee:
            knee += LEARNING_RATE * (carried - knee)
        elif knee < prior:
            knee += (prior - knee) * min(1.0, passed_s / FORGET_S)
        most = prior * MOST if config.itl_objective_s is not None else prior
        least = max(prior * LEAST, min(prior, 1 / UTILISATION))
        return Capacity(min(max(knee, least), most), over)


def _limit(replica: ReplicaSignals, config: AutoscalingConfig) -> float | None:
    """Requests that this replica can carry, if it shows that it has more; else None."""
    if replica.waiting >= max(1.0, 0.05 * replica.busy) and replica.busy >= 1.0:
        return replica.busy
    if config.itl_objective_s is not None and replica.itl_s > config.itl_objective_s:
        return replica.busy * config.itl_objective_s / replica.itl_s
    return None
