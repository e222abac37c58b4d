"""The policy's input: the load of each running replica, and the number of replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ReplicaSignals:
    """The load of one replica, as it reports it to Serve; missing figures are zero or None."""

    # Requests inside the replica, those that wait for the engine's scheduler included.
    open_requests: float = 0.0
    # Requests in the engine's batch, and those that wait to enter it.
    running: float = 0.0
    waiting: float = 0.0
    # Share of the KV cache that is taken, 0 to 1.
    kv_cache_use: float = 0.0
    # Generated tokens per second over some seconds.
    tokens_per_s: float = 0.0
    # Requests that ever came to this replica; without it, arrivals are unknown.
    arrived_requests: float | None = None
    # Requests that gateways hold back for this model until a replica has room.
    gateway_queue: float = 0.0
    # Seconds that the start of this replica took.
    start_s: float | None = None

    @property
    def busy(self) -> float:
        """Requests that are being worked on."""
        return max(0.0, self.open_requests - self.waiting)

    @property
    def itl_s(self) -> float:
        """Mean gap between two tokens of a request, in seconds; 0 where nothing is generated."""
        return self.running / self.tokens_per_s if self.tokens_per_s > 0 else 0.0


@dataclass(frozen=True)
class Signals:
    """The load of one model at one moment."""

    # By the replica's id; a replica that has not reported yet is missing.
    replicas: Mapping[str, ReplicaSignals] = field(default_factory=dict)
    # Replicas that run, and replicas that were asked for.
    running: int = 0
    target: int = 0
    # Control calls that wait for a replica: somebody wants a model that sleeps.
    queued: float = 0.0

    @property
    def open_requests(self) -> float:
        """Requests inside replicas."""
        return sum(replica.open_requests for replica in self.replicas.values())

    @property
    def busy(self) -> float:
        """Requests that are being worked on."""
        return sum(replica.busy for replica in self.replicas.values())

    @property
    def gateway_queue(self) -> float:
        """Requests that gateways hold: each replica reports the same queue, as of its last request."""
        return max((replica.gateway_queue for replica in self.replicas.values()), default=0.0)

    @property
    def backlog(self) -> float:
        """Requests that no engine works on."""
        waiting = sum(
            min(replica.waiting, replica.open_requests) for replica in self.replicas.values()
        )
        return waiting + self.gateway_queue
