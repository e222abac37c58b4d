"""The policy `session`: each session at one replica, by consistent hashing with bounded loads. Pure.

V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018
(https://arxiv.org/abs/1608.01350): no replica gets more than 1 + epsilon times the mean load, and a replica
that comes or goes moves about one n-th of the sessions. All gateways agree without talking to each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from serving.config.replica_routing import PolicyName, ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.replicas.choice import Choice, RandomSource, Reason, RoutedRequest
from serving.replicas.least_loaded import LeastLoaded
from serving.replicas.ring import Ring


class Session(LeastLoaded):
    """The policy. Requests without a session go where there is little to do."""

    name: PolicyName = "session"
    reads_prompt = True

    def __init__(
        self, config: ReplicaRoutingConfig, random: RandomSource, gateways: int = 1
    ) -> None:
        super().__init__(random, gateways)
        self._bound = 1.0 + config.epsilon
        self._ring = Ring()

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        if not request.session:
            return super().choose(request, replicas, in_flight)
        load = self.load
        load.look(replicas, in_flight)
        offered = {replica.id: replica for replica in replicas}
        for id_ in offered:
            self._ring.add(id_)
        requests = {id_: load.requests(replica, in_flight) for id_, replica in offered.items()}
        # The request itself counts, as in the paper: of replicas that are all idle, each has room for it.
        most = math.ceil(self._bound * (sum(requests.values()) + 1) / len(requests))
        in_order = (id_ for id_ in self._ring.walk(request.session) if id_ in offered)
        home = next(in_order)
        chosen = next((id_ for id_ in chain((home,), in_order) if requests[id_] < most), home)
        reason: Reason = "session" if chosen == home else "spill"
        choice = Choice(
            offered[chosen],
            self.name,
            reason,
            computed_bytes=request.prompt_bytes,
            is_streamed=request.is_streamed,
        )
        load.sent(choice)
        return choice

    def forget(self, live: Collection[str]) -> None:
        self._ring.keep(live)
        super().forget(live)
