"""The load of each replica, from the gateway's own records and the engines' reports. Pure.

Load is counted in bytes of prompt. Prompts that wait for their first token are what a new request waits for,
so they count in full; an answer that is being written costs others little.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serving.discovery.directory import Replica
from serving.replica_facts import ReplicaStats
from serving.replicas.choice import Choice

# The cost to others of an answer that is being written, in bytes of prompt; it doubles as the KV cache fills.
# The cost of a prompt beside its length: a step of the engine.
ANSWER_BYTES = 128.0
STEP_BYTES = 256
# The weight of the newest prompt in the mean size of prompts.
_SMOOTHING = 1 / 32


@dataclass(slots=True)
class _Pending:
    """Requests of this gateway that wait at one replica for their first token."""

    requests: int = 0
    bytes: int = 0
    # The cost of answers that are not streamed, by the choice's identity: those sent before the last report,
    # and those since.
    older: dict[int, int] = field(default_factory=dict)
    recent: dict[int, int] = field(default_factory=dict)

    def settle(self, waiting: float) -> None:
        """Apply a report: the engine has begun all requests sent before the last one, except this many.

        The oldest go first. Streams are left out: their first token is the better sign, above all for long
        prompts, which an engine counts as running while it reads them.
        """
        while len(self.older) > waiting:
            self.end(next(iter(self.older)))
        self.older |= self.recent
        self.recent = {}

    def end(self, whole: int) -> None:
        """Forget one that is not streamed, if that has not happened before."""
        cost = self.older.pop(whole, None) or self.recent.pop(whole, None)
        if cost is not None:
            self.requests -= 1
            self.bytes -= cost


@dataclass(frozen=True, slots=True)
class _Report:
    """The last report of a replica, and the part of it that is not this gateway's."""

    stats: ReplicaStats
    requests: float
    waiting: float


class LoadView:
    """The load of each replica.

    A report is up to half a second old but knows the requests of other gateways; the own records are
    exact. A report's excess over the own records, when it came, is taken for the others' share.
    """

    def __init__(self) -> None:
        self._reports: dict[str, _Report] = {}
        self._pending: dict[str, _Pending] = {}
        self._mean_bytes: float = STEP_BYTES

    def look(self, replicas: Sequence[Replica], in_flight: Mapping[str, int]) -> None:
        """Take in new reports; call it before you ask for loads."""
        for replica in replicas:
            known = self._reports.get(replica.id)
            if known is not None and (known.stats is replica.stats or known.stats == replica.stats):
                continue
            running = replica.stats.running
            waiting = replica.stats.waiting
            own = in_flight.get(replica.id, 0)
            pending = self._pending.get(replica.id)
            if pending is not None:
                pending.settle(waiting)
            self._reports[replica.id] = _Report(
                replica.stats,
                max(0.0, running + waiting - own),
                max(0.0, waiting - (pending.requests if pending else 0)),
            )

    def requests(self, replica: Replica, in_flight: Mapping[str, int]) -> float:
        """The number of requests at the replica, running and waiting."""
        return in_flight.get(replica.id, 0) + self._reports[replica.id].requests

    def bytes(self, replica: Replica, in_flight: Mapping[str, int]) -> float:
        """The work of the replica, in bytes of prompt."""
        report = self._reports[replica.id]
        kv_cache_use = replica.stats.kv_cache_use
        answers = self.requests(replica, in_flight) * ANSWER_BYTES * (1.0 + kv_cache_use)
        pending = self._pending.get(replica.id)
        own = pending.bytes if pending else 0
        return own + report.waiting * self._mean_bytes + answers

    def sent(self, choice: Choice) -> None:
        """Count a request that goes to a replica."""
        pending = self._pending.setdefault(choice.replica.id, _Pending())
        pending.requests += 1
        cost = choice.computed_bytes + STEP_BYTES
        pending.bytes += cost
        if not choice.is_streamed:
            pending.recent[id(choice)] = cost
        self._mean_bytes += (cost - self._mean_bytes) * _SMOOTHING

    def began(self, choice: Choice) -> None:
        """Count a request no longer that a replica has begun to answer, or never will."""
        pending = self._pending.get(choice.replica.id)
        if pending is None:
            return
        if choice.is_streamed:
            pending.requests -= 1
            pending.bytes -= choice.computed_bytes + STEP_BYTES
        else:
            pending.end(id(choice))
        if pending.requests <= 0:
            del self._pending[choice.replica.id]

    def keep(self, live: Collection[str]) -> None:
        """Drop replicas that are not among these."""
        for table in (self._reports, self._pending):
            for id_ in table.keys() - set(live):
                del table[id_]
