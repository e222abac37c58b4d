"""Circuit breakers: a replica that fails gets no requests for a time, then one as a probe. Pure.

As in "Release It!" (Nygard, 2007): closed, everything goes through; open, nothing does, for a time that
doubles with each opening; half-open, one probe at a time decides. A breaker opens after so many failures in
a row, or when too large a share of a sliding window failed.

The sender of a request calls `begin`, and gives what it returns to `record`: answers to requests from before
the breaker's last change say nothing about now and are ignored.

A fault that no request can cause counts in full: nobody accepts a connection, the engine is dead, the machine
has vanished. A request that failed here and that another replica answered (`doubt`) is weaker, because the
request may be the cause all the same: a tenant's doubts count at most as much as those of all other tenants
together. One tenant alone opens no breaker with them.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from serving.config.admission import BreakerConfig
from serving.discovery.directory import Replica

State = Literal["closed", "open", "half_open"]

# The window moves in steps of one tenth of it.
BUCKETS = 10


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A breaker at one moment; `retry_in_s` is 0 unless it is open."""

    state: State
    consecutive_failures: int
    window_requests: int
    window_failures: int
    openings: int
    retry_in_s: float


@dataclass(slots=True)
class _Bucket:
    """Counts of one step of the window."""

    step: int
    requests: int = 0
    failures: int = 0
    doubts: dict[str, int] = field(default_factory=dict)


def weight(doubts: Mapping[str, int]) -> int:
    """The weight of doubts: those of one tenant count at most as much as those of all others together."""
    if len(doubts) < 2:
        return 0
    total, most = sum(doubts.values()), max(doubts.values())
    return min(total, 2 * (total - most))


class Breaker:
    """The breaker of one replica, or of one model. Times are seconds of the caller's clock.

    Args:
        random: a source of numbers from 0 to 1, for the jitter of open times.
    """

    def __init__(self, config: BreakerConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self._state: State = "closed"
        self._epoch = 0
        self._consecutive = 0
        # The newest last; at most one for each step of the window.
        self._buckets: deque[_Bucket] = deque()
        # Doubts since the last success, by tenant.
        self._doubts: dict[str, int] = {}
        # The number of openings in a row, and in all.
        self._streak = 0
        self._openings = 0
        self._closed_at_s = -math.inf
        self._retry_at_s = -math.inf
        self._probe_until_s = -math.inf

    @property
    def retry_at_s(self) -> float:
        """The moment from which the next probe may go: long ago, if the breaker is closed."""
        if self._state == "closed":
            return -math.inf
        return self._retry_at_s if self._state == "open" else self._probe_until_s

    def allows(self, now: float) -> bool:
        """Whether a request may be sent: in half-open only while no probe is out."""
        return self._state == "closed" or now >= self.retry_at_s

    def begin(self, now: float) -> int:
        """Begin a request. Returns what `record` or `abandon` needs when it is over."""
        if self._state != "closed":
            if self._state == "open" and now >= self._retry_at_s:
                self._change("half_open")
            self._probe_until_s = now + self._config.probe_timeout_s
        return self._epoch

    def record(self, ok: bool, now: float, attempt: int) -> None:
        """Record the end of a request, `ok` or not. A client's mistake, or its leaving, is no failure."""
        if attempt != self._epoch:
            return
        if self._state != "closed":
            # A request may also have been let through because there was nothing better.
            if ok:
                self._close(now)
            elif self._state == "half_open":
                self._open(now)
            return
        bucket = self._bucket(now)
        bucket.requests += 1
        if ok:
            self._consecutive = 0
            if self._doubts:
                self._doubts.clear()
            return
        bucket.failures += 1
        self._consecutive += 1
        if self._is_broken():
            self._open(now)

    def doubt(self, tenant: str, now: float) -> None:
        """Record a request of the tenant at which this replica failed, and which another one has answered."""
        if self._state != "closed":
            # A probe decides, and a doubt is too weak for one.
            return
        bucket = self._bucket(now)
        bucket.requests += 1
        bucket.doubts[tenant] = bucket.doubts.get(tenant, 0) + 1
        self._doubts[tenant] = self._doubts.get(tenant, 0) + 1
        if self._is_broken():
            self._open(now)

    def broke(self, now: float) -> None:
        """Record that the replica vanished under an answer that had begun, whenever the request was sent.

        That says nothing while the breaker is not closed: the probe decides, and old streams may still die.
        """
        if self._state == "closed":
            self.record(False, now, self._epoch)

    def abandon(self, now: float, attempt: int) -> None:
        """Note a request that ended and says nothing about the replica: its client left, for example."""
        if attempt == self._epoch and self._state == "half_open":
            self._probe_until_s = now

    def snapshot(self, now: float) -> BreakerSnapshot:
        """The breaker's state, to be shown."""
        self._bucket(now)
        return BreakerSnapshot(
            state=self._state,
            consecutive_failures=self._consecutive,
            window_requests=sum(bucket.requests for bucket in self._buckets),
            window_failures=sum(
                bucket.failures + sum(bucket.doubts.values()) for bucket in self._buckets
            ),
            openings=self._openings,
            retry_in_s=max(0.0, self._retry_at_s - now) if self._state == "open" else 0.0,
        )

    # ---- inside ------------------------------------------------------------------------------------------

    def _is_broken(self) -> bool:
        in_a_row = self._consecutive + weight(self._doubts)
        if in_a_row >= self._config.consecutive_failures:
            return True
        requests = sum(bucket.requests for bucket in self._buckets)
        doubts: Counter[str] = Counter()
        for bucket in self._buckets:
            doubts.update(bucket.doubts)
        failures = sum(bucket.failures for bucket in self._buckets) + weight(doubts)
        return (
            requests >= self._config.min_requests
            and failures >= self._config.failure_share * requests
        )

    def _open(self, now: float) -> None:
        # After a whole window without an opening the trouble is a new one.
        held = self._state == "closed" and now - self._closed_at_s > self._config.window_s
        self._streak = 1 if held else self._streak + 1
        self._openings += 1
        # The exponent is bounded, or a float would overflow after a thousand openings.
        longest_s = self._config.open_s * 2.0 ** min(self._streak - 1, 64)
        open_s = min(longest_s, self._config.max_open_s)
        self._retry_at_s = now + open_s * (1 - self._config.jitter * self._random())
        self._change("open")

    def _close(self, now: float) -> None:
        self._closed_at_s = now
        self._change("closed")

    def _change(self, state: State) -> None:
        self._state = state
        self._epoch += 1
        if state != "half_open":
            self._consecutive = 0
            self._doubts.clear()
            self._buckets.clear()

    def _bucket(self, now: float) -> _Bucket:
        """The newest bucket, after those have gone that lie before the window."""
        step = int(now // (self._config.window_s / BUCKETS))
        while self._buckets and self._buckets[0].step <= step - BUCKETS:
            self._buckets.popleft()
        if not self._buckets or self._buckets[-1].step < step:
            self._buckets.append(_Bucket(step))
        return self._buckets[-1]


class Breakers:
    """The breakers of a gateway: one for each replica and one for each model, by id, made when asked for."""

    def __init__(self, config: BreakerConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self.replicas: dict[str, Breaker] = {}
        self.models: dict[str, Breaker] = {}

    def replica(self, replica_id: str) -> Breaker:
        """The breaker of a replica."""
        return self._get(self.replicas, replica_id)

    def model(self, model_id: str) -> Breaker:
        """The breaker of a model as a whole: with it open another model is chosen, never none."""
        return self._get(self.models, model_id)

    def choose_allowed(self, replicas: Sequence[Replica], now: float) -> Sequence[Replica]:
        """The replicas that may be asked; with all breakers open none, until a probe is due."""
        breakers = self.replicas
        return [
            replica
            for replica in replicas
            if (breaker := breakers.get(replica.id)) is None or breaker.allows(now)
        ]

    def keep(self, replica_ids: Collection[str], model_ids: Collection[str]) -> None:
        """Forget all others, which are gone."""
        self.replicas = {
            name: breaker for name, breaker in self.replicas.items() if name in replica_ids
        }
        self.models = {name: breaker for name, breaker in self.models.items() if name in model_ids}

    def _get(self, breakers: dict[str, Breaker], name: str) -> Breaker:
        breaker = breakers.get(name)
        if breaker is None:
            breaker = breakers[name] = Breaker(self._config, self._random)
        return breaker
