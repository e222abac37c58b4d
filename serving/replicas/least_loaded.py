"""The policy `least-loaded`: the replica that has the least to do, of a few drawn at random. Pure.

Several gateways compare two each. That keeps the longest queue nearly as short as looking at all replicas
would, and gateways that see the same old reports do not all run to the same replica: M. Mitzenmacher, "The
Power of Two Choices in Randomized Load Balancing", IEEE Transactions on Parallel and Distributed Systems 12
(10), 2001. A gateway that is alone knows all exactly, and compares more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from serving.config.replica_routing import PolicyName
from serving.discovery.directory import Replica
from serving.replicas.choice import Choice, RandomSource, RoutedRequest
from serving.replicas.load import LoadView

CHOICES = 2
CHOICES_ALONE = 8


class LeastLoaded:
    """The policy, with `gateways` in front of the replicas, this one included."""

    name: PolicyName = "least-loaded"
    reads_prompt = False

    def __init__(self, random: RandomSource, gateways: int = 1) -> None:
        self._random = random
        self._choices = CHOICES if gateways > 1 else CHOICES_ALONE
        self.load = LoadView()

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        self.load.look(replicas, in_flight)
        choice = Choice(
            self.pick(replicas, in_flight),
            self.name,
            "load",
            computed_bytes=request.prompt_bytes,
            is_streamed=request.is_streamed,
        )
        self.load.sent(choice)
        return choice

    def pick(self, replicas: Sequence[Replica], in_flight: Mapping[str, int]) -> Replica:
        """The least loaded replica of those drawn; call `load.look` before."""
        drawn = draw(replicas, self._choices, self._random)
        return min(drawn, key=lambda replica: self.load.bytes(replica, in_flight))

    def began(self, choice: Choice) -> None:
        self.load.began(choice)

    def served(
        self,
        request: RoutedRequest,
        choice: Choice,
        cached_tokens: int | None,
        prompt_tokens: int | None,
    ) -> None:
        """There is nothing to learn."""

    def forget(self, live: Collection[str]) -> None:
        self.load.keep(live)


def draw(replicas: Sequence[Replica], count: int, random: RandomSource) -> list[Replica]:
    """Different replicas in random order; all of them, if there are no more."""
    left = list(replicas)
    return [left.pop(int(random() * len(left))) for _ in range(min(count, len(left)))]
