"""The policy `prefix`: a replica with the prompt's beginning in its KV cache that is not too busy. Pure.

The work that the request would be for a replica is weighed against the work that it has already, both in
bytes of prompt, as in V. Srivatsa et al., "Preble: Efficient Distributed Prompt Scheduling for LLM Serving",
ICLR 2025 (https://arxiv.org/abs/2407.00023). A beginning that everyone asks for spreads by itself: as soon as
waiting costs more than computing it again, another replica does, and has it from then on.

A gateway does not know what others sent. Where there are several, each conversation and each system prompt
has a home: a replica, the same for all gateways (`serving.replicas.ring`), which is presumed to have it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from serving.config.replica_routing import PolicyName, ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.records import record
from serving.replicas.choice import Choice, RandomSource, Reason, RoutedRequest
from serving.replicas.least_loaded import LeastLoaded, draw
from serving.replicas.prefix_index import Match, PrefixIndex
from serving.replicas.prompt_prefix import PromptPrefix
from serving.replicas.ring import Ring

# The number of replicas that are compared, of those that have the most of a prompt.
HOLDERS = 2
# The weight of the newest report of an engine in the trust in it.
_SMOOTHING = 1 / 8
# An engine that has less than this share of what was expected has dropped the prompt.
_GONE = 0.5


@record
class _Home:
    """A replica to which all gateways send a prompt: bytes that this saves now, bytes that it is worth."""

    saved: float = 0.0
    worth: float = 0.0


_NO_HOME = _Home()


class Prefix:
    """The policy. Unknown prompts go where there is little to do."""

    name: PolicyName = "prefix"
    reads_prompt = True

    def __init__(
        self, config: ReplicaRoutingConfig, random: RandomSource, gateways: int = 1
    ) -> None:
        self._config = config
        self._random = random
        # The probability that another gateway sent the last turn of a conversation.
        self._elsewhere = 1.0 - 1.0 / gateways
        self._least_loaded = LeastLoaded(random, gateways)
        self._load = self._least_loaded.load
        self._ring = Ring()
        # The mean share of the expected bytes that a replica's engine really had; 1 where it is not known.
        self._trust: dict[str, float] = {}
        self.index = PrefixIndex(config.max_entries)

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        self._load.look(replicas, in_flight)
        idle = self._least_loaded.pick(replicas, in_flight)
        match = self.index.longest(request.prompt, [replica.id for replica in replicas])
        homes = self._homes(request.prompt, replicas)
        choice: Choice | None = None
        lowest = 0.0
        for replica in (*self._liked(match, homes, replicas, in_flight), idle):
            known, known_at = self.index.known(request.prompt, replica.id)
            home = homes.get(replica.id, _NO_HOME)
            saved = max(known * self._trust.get(replica.id, 1.0), home.saved)
            cost = self._load.bytes(replica, in_flight) - max(saved, home.worth)
            if choice is None or cost < lowest:
                lowest = cost
                computed = max(0, request.prompt_bytes - round(saved))
                reason = _reason(known, match, home)
                choice = Choice(
                    replica, self.name, reason, computed, known, known_at, request.is_streamed
                )
        if choice is None:
            raise ValueError("there must be a replica to choose")
        self.index.add(request.prompt, choice.replica.id)
        self._load.sent(choice)
        return choice

    def _liked(
        self,
        match: Match,
        homes: Mapping[str, _Home],
        replicas: Sequence[Replica],
        in_flight: Mapping[str, int],
    ) -> list[Replica]:
        """Replicas that may have the prompt, unless they have many more requests than others."""
        if not match.holders and not homes:
            return []
        requests = {replica.id: self._load.requests(replica, in_flight) for replica in replicas}
        mean = (sum(requests.values()) + 1) / len(requests)
        most = self._config.spill_ratio * mean + self._config.spill_requests
        holders = [replica for replica in replicas if replica.id in match.holders]
        liked = draw(holders, HOLDERS, self._random)
        liked += [replica for replica in replicas if replica.id in homes and replica not in liked]
        return [replica for replica in liked if requests[replica.id] < most]

    def _homes(self, prompt: PromptPrefix, replicas: Sequence[Replica]) -> dict[str, _Home]:
        """The homes of the conversation and of the system prompt, to which other gateways would send them."""
        homes: dict[str, _Home] = {}
        if not self._elsewhere:
            return homes
        ids = {replica.id for replica in replicas}
        for id_ in ids:
            self._ring.add(id_)
        if prompt.head:
            saved = prompt.head_bytes * self._elsewhere
            homes[self._home(prompt.head, ids)] = _Home(saved, saved)
        if prompt.opening:
            # A conversation's first turn saves nothing yet, but gateways will look there for the next one.
            worth = prompt.total_bytes - (0 if prompt.follows else prompt.head_bytes)
            saved = worth if prompt.follows else 0
            id_ = self._home(prompt.opening, ids)
            other = homes.get(id_, _NO_HOME)
            homes[id_] = _Home(
                max(other.saved, saved * self._elsewhere),
                max(other.worth, worth * self._elsewhere),
            )
        return homes

    def _home(self, hash_: int, ids: Collection[str]) -> str:
        return next(id_ for id_ in self._ring.walk(f"{hash_:x}") if id_ in ids)

    def began(self, choice: Choice) -> None:
        self._load.began(choice)

    def served(
        self,
        request: RoutedRequest,
        choice: Choice,
        cached_tokens: int | None,
        prompt_tokens: int | None,
    ) -> None:
        """Compare what the engine had with what was expected.

        Engines drop what was used longest ago. If this prompt was gone, so is all that the replica used no
        later than that; the prompt itself is there again.
        """
        if cached_tokens is None or not prompt_tokens or not choice.expected_bytes:
            return
        expected = choice.expected_bytes / request.prompt.total_bytes
        had = min(1.0, cached_tokens / prompt_tokens / expected)
        id_ = choice.replica.id
        trust = self._trust.get(id_, 1.0)
        self._trust[id_] = trust + (had - trust) * _SMOOTHING
        if had < _GONE:
            self.index.forget_until(id_, choice.known_at)

    def forget(self, live: Collection[str]) -> None:
        self.index.keep(live)
        self._ring.keep(live)
        self._least_loaded.forget(live)
        for id_ in self._trust.keys() - set(live):
            del self._trust[id_]


def _reason(known: int, match: Match, home: _Home) -> Reason:
    if known and known == match.bytes:
        return "prefix"
    if home.worth:
        return "session"
    return "spill" if match.holders else "load"
