"""Keeps a session at one replica while that has room: consistent hashing with bounded loads. Pure.

V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018
(https://arxiv.org/abs/1608.01350): no replica gets more than 1 + epsilon times the mean load, and a replica
that comes or goes moves about one n-th of the sessions. All gateways agree without talking to each other.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from serving.config.replicas import PolicyName, ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.replicas.choice import Choice, RandomSource, Reason, RoutedRequest
from serving.replicas.least_loaded import LeastLoaded

# Places of each replica on the ring: the more, the more even the shares (1 / sqrt(POINTS) of a share).
POINTS = 128


class Ring:
    """Places of replicas on a circle of 64-bit numbers."""

    def __init__(self) -> None:
        self._points: list[tuple[int, str]] = []
        self._ids: set[str] = set()

    def add(self, replica_id: str) -> None:
        """Give a replica its places, once."""
        if replica_id in self._ids:
            return
        self._ids.add(replica_id)
        for number in range(POINTS):
            insort(self._points, (_place(f"{replica_id}\0{number}"), replica_id))

    def keep(self, live: Collection[str]) -> None:
        """Take away the places of replicas that are not among these."""
        if not self._ids <= set(live):
            self._ids &= set(live)
            self._points = [point for point in self._points if point[1] in self._ids]

    def walk(self, key: str) -> Iterator[str]:
        """Replicas in the order of their places after the key's, each once."""
        start = bisect_left(self._points, (_place(key), ""))
        seen: set[str] = set()
        for index in range(len(self._points)):
            if len(seen) == len(self._ids):
                return
            _, id_ = self._points[(start + index) % len(self._points)]
            if id_ not in seen:
                seen.add(id_)
                yield id_


class Session:
    """The policy `session`. Requests without a session go where there is little to do."""

    name: PolicyName = "session"
    reads_prompt = True

    def __init__(
        self, config: ReplicaRoutingConfig, random: RandomSource, gateways: int = 1
    ) -> None:
        self._bound = 1.0 + config.epsilon
        self._least_loaded = LeastLoaded(random, gateways, self.name)
        self._ring = Ring()

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        if not request.session:
            return self._least_loaded.choose(request, replicas, in_flight)
        load = self._least_loaded.load
        load.look(replicas, in_flight)
        offered = {replica.id: replica for replica in replicas}
        for id_ in offered:
            self._ring.add(id_)
        requests = {id_: load.requests(one, in_flight) for id_, one in offered.items()}
        # The request itself counts, as in the paper: with nothing to do everywhere, one has room for it.
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

    def began(self, choice: Choice) -> None:
        self._least_loaded.began(choice)

    def served(
        self,
        request: RoutedRequest,
        choice: Choice,
        cached_tokens: int | None,
        prompt_tokens: int | None,
    ) -> None:
        """There is nothing to learn: the ring decides."""

    def forget(self, live: Collection[str]) -> None:
        self._ring.keep(live)
        self._least_loaded.forget(live)


def _place(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
