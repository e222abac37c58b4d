"""Simulated replicas: continuous batching, a queue before them, cold starts; one event at a time."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from serving.engine.access import QUEUE_MEMORY_S

TICK_S = 0.2


@dataclass(frozen=True)
class ReplicaModel:
    """The abilities of a replica. The defaults are a small model on one GPU, in round numbers."""

    # Requests in a batch (vLLM's max_num_seqs), and requests that a gateway lets through to a replica.
    slots: int = 40
    gateway_limit: int | None = 48
    # A batch of n requests yields n tokens every itl_s + itl_per_request_s * n.
    itl_s: float = 0.020
    itl_per_request_s: float = 0.00075
    prefill_s: float = 0.15
    # Tokens of an answer: log-normal.
    mean_tokens: float = 200.0
    token_spread: float = 0.6
    kv_tokens: float = 24_000.0
    prompt_tokens: float = 300.0
    cold_start_s: float = 30.0
    # What a replica says its start took, which is less than it took; None: the same.
    reported_start_s: float | None = None

    def gap_s(self, batch: int) -> float:
        """Seconds between two tokens of a request."""
        return self.itl_s + self.itl_per_request_s * batch


@dataclass
class Request:
    """One request: how long its answer will be, and how long its first token took."""

    arrived_s: float
    tokens: float
    ttft_s: float = math.inf


@dataclass
class Replica:
    """One replica, which shares its time evenly among the requests of its batch."""

    name: str
    asked_s: float
    ready: bool = False
    draining: bool = False
    # Tokens that a request would have got that was in the batch from the beginning.
    progress: float = 0.0
    updated_s: float = 0.0
    generated: float = 0.0
    arrived: int = 0
    version: int = 0
    # The gateway's queue as it was told with a request, and when that was.
    queue_told: int = 0
    queue_told_s: float = -math.inf
    batch: list[tuple[float, int]] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)

    @property
    def open_requests(self) -> int:
        return len(self.batch) + len(self.waiting)

    def gateway_queue(self, now_s: float) -> int:
        """The gateway's queue, as far as this replica knows (serving/engine/access.py)."""
        return self.queue_told if now_s - self.queue_told_s < QUEUE_MEMORY_S else 0

    def note_queue(self, queued: int, now_s: float) -> None:
        """What came with a request: only the longest counts, as long as it is news."""
        if queued and queued >= self.gateway_queue(now_s):
            self.queue_told, self.queue_told_s = queued, now_s


class Scaler(Protocol):
    """A policy as the controller runs it: metrics that travel, decisions several times a second."""

    def tick(self, now_s: float, fleet: Fleet) -> int:
        """The target number of replicas."""
        ...


@dataclass
class Outcome:
    """The course of a simulation."""

    requests: list[Request]
    # When the number of replicas asked for changed, and to what; and how many answered.
    targets: list[tuple[float, int]]
    running: list[tuple[float, int]]
    replica_s: float


class Fleet:
    """Replicas, the gateway's queue before them, and the clock."""

    def __init__(self, model: ReplicaModel, replicas: int, seed: int) -> None:
        self.model = model
        self.queue: deque[Request] = deque()
        self.replicas: list[Replica] = []
        self._draw = random.Random(f"tokens/{seed}")
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, str, Replica | None, int]] = []
        self._replica_s = 0.0
        self._targets: list[tuple[float, int]] = []
        self._running: list[tuple[float, int]] = []
        for _ in range(replicas):
            self._start(0.0, ready_s=0.0)

    @property
    def target(self) -> int:
        """Replicas that are asked for."""
        return sum(not replica.draining for replica in self.replicas)

    @property
    def serving(self) -> list[Replica]:
        """Replicas that take requests."""
        return [r for r in self.replicas if r.ready and not r.draining]

    @property
    def requests(self) -> int:
        """Requests in replicas and in the gateway's queue."""
        return len(self.queue) + sum(replica.open_requests for replica in self.replicas)

    def run(self, arrivals: Iterable[float], scaler: Scaler, duration_s: float) -> Outcome:
        """Play the arrivals, asking the scaler five times a second."""
        requests = [Request(moment_s, self._tokens()) for moment_s in arrivals]
        coming = iter([*requests, Request(math.inf, 0.0)])
        following = next(coming)
        self._push(0.0, "tick")
        while self._events:
            if following.arrived_s <= self._events[0][0]:
                if following.arrived_s > duration_s:
                    break
                self.queue.append(following)
                self._dispatch(following.arrived_s)
                following = next(coming)
                continue
            now_s, _, kind, replica, version = heapq.heappop(self._events)
            if now_s > duration_s:
                break
            if kind == "tick":
                self._scale(scaler.tick(now_s, self), now_s)
                self._push(now_s + TICK_S, "tick")
            elif replica is not None and kind == "ready" and replica in self.replicas:
                replica.ready, replica.updated_s = True, now_s
                self._dispatch(now_s)
            elif replica is not None and kind == "finish" and replica.version == version:
                self._finish(replica, now_s)
            self._note(self._running, now_s, len(self.serving))
        self._replica_s += sum(duration_s - replica.asked_s for replica in self.replicas)
        return Outcome(requests, self._targets, self._running, self._replica_s)

    def _tokens(self) -> float:
        spread = self.model.token_spread
        return max(
            1.0, self.model.mean_tokens * self._draw.lognormvariate(-(spread**2) / 2, spread)
        )

    def _push(self, at_s: float, kind: str, replica: Replica | None = None) -> None:
        version = replica.version if replica else 0
        heapq.heappush(self._events, (at_s, next(self._numbers), kind, replica, version))

    def _note(self, series: list[tuple[float, int]], now_s: float, value: int) -> None:
        if not series or series[-1][1] != value:
            series.append((now_s, value))

    def _start(self, now_s: float, ready_s: float) -> None:
        replica = Replica(f"r{next(self._numbers)}", now_s)
        self.replicas.append(replica)
        self._push(ready_s, "ready", replica)

    def _scale(self, target: int, now_s: float) -> None:
        self._note(self._targets, now_s, target)
        for _ in range(target - self.target):
            self._start(now_s, now_s + self.model.cold_start_s)
        while self.target > target:
            # Serve gives up what has not started yet, then what has the least to do.
            leaving = min(
                (r for r in self.replicas if not r.draining),
                key=lambda r: (r.ready, r.open_requests, -r.asked_s),
            )
            leaving.draining = True
            self._end_if_idle(leaving, now_s)

    def _end_if_idle(self, replica: Replica, now_s: float) -> None:
        if replica.draining and not replica.open_requests:
            self.replicas.remove(replica)
            self._replica_s += now_s - replica.asked_s

    def _dispatch(self, now_s: float) -> None:
        """Requests go to the replica with the fewest, while the gateway's limit lets them."""
        limit = self.model.gateway_limit or math.inf
        while self.queue:
            replica = min(self.serving, key=lambda r: r.open_requests, default=None)
            if replica is None or replica.open_requests >= limit:
                return
            replica.arrived += 1
            replica.waiting.append(self.queue.popleft())
            replica.note_queue(len(self.queue), now_s)
            self._advance(replica, now_s)
            self._admit(replica, now_s)

    def _advance(self, replica: Replica, now_s: float) -> None:
        if replica.batch:
            steps = (now_s - replica.updated_s) / self.model.gap_s(len(replica.batch))
            replica.progress += steps
            replica.generated += steps * len(replica.batch)
        replica.updated_s = now_s

    def _admit(self, replica: Replica, now_s: float) -> None:
        while replica.waiting and len(replica.batch) < self.model.slots:
            request = replica.waiting.popleft()
            gap_s = self.model.gap_s(len(replica.batch) + 1)
            request.ttft_s = now_s - request.arrived_s + self.model.prefill_s + gap_s
            ends = replica.progress + request.tokens + self.model.prefill_s / gap_s
            heapq.heappush(replica.batch, (ends, next(self._numbers)))
        replica.version += 1
        if replica.batch:
            left = max(0.0, replica.batch[0][0] - replica.progress)
            self._push(now_s + left * self.model.gap_s(len(replica.batch)), "finish", replica)

    def _finish(self, replica: Replica, now_s: float) -> None:
        self._advance(replica, now_s)
        heapq.heappop(replica.batch)
        self._admit(replica, now_s)
        self._dispatch(now_s)
        self._end_if_idle(replica, now_s)
