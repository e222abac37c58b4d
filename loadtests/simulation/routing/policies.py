"""The policies that are compared: the gateway's own, round robin, and oracles that see into the engines."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtests.simulation.routing.engines import Engine, SimRequest
from serving.config.replica_routing import ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.replicas.choice import Choice, ReplicaPolicy
from serving.replicas.policies import replica_policy


class Chooser:
    """A policy in the simulation, which may look at everything."""

    def choose(
        self, request: SimRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        """Pick a replica."""
        raise NotImplementedError

    def began(self, request: SimRequest) -> None:
        """Its first token has come."""

    def served(self, request: SimRequest) -> None:
        """The request was answered."""


class Real(Chooser):
    """A policy of the gateway, which sees what it sees there."""

    def __init__(self, policy: ReplicaPolicy) -> None:
        self._policy = policy

    def choose(
        self, request: SimRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        return self._policy.choose(request.routed, replicas, in_flight)

    def began(self, request: SimRequest) -> None:
        if request.choice is not None:
            self._policy.began(request.choice)

    def served(self, request: SimRequest) -> None:
        if request.choice is not None:
            self._policy.served(
                request.routed, request.choice, request.cached_tokens, request.prompt_tokens
            )


class RoundRobin(Chooser):
    """One after the other."""

    def __init__(self) -> None:
        self._next = 0

    def choose(
        self, request: SimRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        self._next += 1
        return Choice(replicas[self._next % len(replicas)], "least-loaded", "load")


class Oracle(Chooser):
    """Knows each cache and each queue exactly, and gives every request its earliest first token."""

    def __init__(self, engines: Mapping[str, Engine], now: Callable[[], float]) -> None:
        self._engines = engines
        self._now = now

    def choose(
        self, request: SimRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        best = min(replicas, key=lambda replica: self._ttft(self._engines[replica.id], request))
        return Choice(best, "least-loaded", "load")

    def _ttft(self, engine: Engine, request: SimRequest) -> tuple[float, int]:
        wait_s = max(0.0, engine.prefill_ends_s - self._now())
        for one in (*engine.waiting, request):
            wait_s += engine.prefill_s(one.prompt_tokens - engine.cached_tokens(one))
        full = max(0, engine.running + len(engine.waiting) + 1 - engine.model.slots)
        wait_s += full * engine.decode_s(request) / engine.model.slots
        return wait_s, engine.running


class Greedy(Oracle):
    """Knows each cache exactly, and takes whoever has the most of the prompt, whatever else it has to do."""

    def choose(
        self, request: SimRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        def key(replica: Replica) -> tuple[int, int]:
            engine = self._engines[replica.id]
            return -engine.cached_tokens(request), engine.running + len(engine.waiting)

        return Choice(min(replicas, key=key), "least-loaded", "load")


# Those of the table, in its order. There is also "greedy oracle".
CHOOSERS = ("round robin", "least-loaded", "session", "prefix", "oracle")


@dataclass(frozen=True)
class Sight:
    """What a gateway of the simulation may look at."""

    engines: Mapping[str, Engine]
    now: Callable[[], float]
    seed: int
    config: ReplicaRoutingConfig
    gateways: int


def chooser(name: str, sight: Sight) -> Chooser:
    """Make a policy by its name in the table.

    Raises:
        ConfigError: there is none of this name.
    """
    if name == "round robin":
        return RoundRobin()
    if name == "oracle":
        return Oracle(sight.engines, sight.now)
    if name == "greedy oracle":
        return Greedy(sight.engines, sight.now)
    source = random.Random(sight.seed).random
    return Real(replica_policy(sight.config, source, sight.gateways, name))
