"""The gateway's state for each model while it forwards: its policy, its retry budget, breakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.discovery.directory import Directory, Replica
from serving.gateway.replica_request import RetryState
from serving.replicas.breaker import Breakers
from serving.replicas.choice import RandomSource, ReplicaPolicy
from serving.replicas.policies import replica_policy
from serving.replicas.retry_budget import RetryBudget
from serving.settings import GatewayConfig

# How long a replica that did not answer is passed over, unless it is the only one.
SUSPECT_S = 3.0


@dataclass(slots=True)
class Lane:
    """The policy, the retry budget and the replicas of one model."""

    policy: ReplicaPolicy
    budget: RetryBudget
    replicas: tuple[Replica, ...] = ()
    # Of which the replicas are.
    directory: Directory | None = None


class Lanes:
    """The lanes of all models, and the breakers of their replicas; both follow the directory."""

    def __init__(
        self, directory: Callable[[], Directory], config: GatewayConfig, draw: RandomSource
    ) -> None:
        self._directory = directory
        self._config = config
        self._draw = draw
        self.all: dict[str, Lane] = {}
        self.breakers = Breakers(config.breaker, draw)
        # Until when those that did not answer are passed over, by id.
        self.suspects: dict[str, float] = {}

    def of(self, model_id: str) -> Lane:
        """The lane of a model, with the replicas that it has now."""
        directory = self._directory()
        lane = self.all.get(model_id)
        if lane is not None and lane.directory is directory:
            return lane
        models = directory.models
        if lane is None:
            # Models come and go; what is kept for those that are gone goes with them.
            self.all = {name: one for name, one in self.all.items() if name in models}
            policy = replica_policy(self._config.replica_routing, self._draw, self._config.replicas)
            lane = self.all[model_id] = Lane(policy, RetryBudget(self._config.retries))
        lane.directory = directory
        model = models.get(model_id)
        replicas = model.replicas if model is not None else ()
        if replicas is not lane.replicas:
            self._replicas_changed(model_id, lane, replicas)
        return lane

    def suspect(self, replica: Replica, now: float) -> None:
        """Note a replica that did not answer."""
        self.suspects[replica.id] = now + SUSPECT_S

    def candidates(self, model_id: str, tried: RetryState, now: float) -> Sequence[Replica]:
        """The replicas to ask: none twice, suspects only as the last resort, none with an open breaker."""
        replicas: Sequence[Replica] = self.of(model_id).replicas
        if tried.replicas:
            replicas = [replica for replica in replicas if replica.id not in tried.replicas]
        if tried.machines:
            elsewhere = [one for one in replicas if one.machine not in tried.machines]
            replicas = elsewhere or replicas
        if self.suspects:
            self.suspects = {name: at for name, at in self.suspects.items() if at > now}
            well = [replica for replica in replicas if replica.id not in self.suspects]
            replicas = well or replicas
        return self.breakers.choose_allowed(replicas, now)

    def has_stepped(self, model_id: str, before: Replica) -> bool:
        """Whether the engine of this replica has taken steps since it was as it is here."""
        stepped_s = before.stats.last_step_s
        for replica in self.of(model_id).replicas:
            if replica.id == before.id:
                return replica.stats.last_step_s != stepped_s
        return False

    def _replicas_changed(self, model_id: str, lane: Lane, replicas: tuple[Replica, ...]) -> None:
        before = {replica.id for replica in lane.replicas}
        lane.replicas = replicas
        now = {replica.id for replica in replicas}
        if before == now:
            return
        lane.policy.forget(now)
        known = {replica.id for one in self.all.values() for replica in one.replicas}
        # With other replicas the model is another: it gets a chance at once.
        self.breakers.keep(known, self.all.keys() - {model_id})
