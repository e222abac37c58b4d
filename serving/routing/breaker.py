"""Circuit breakers: leave alone a replica that fails, try it again later with one request. Pure.

As in "Release It!" (Nygard, 2007): closed, everything goes through; open, nothing does, for a time that
doubles with each opening; half-open, one probe at a time decides. A breaker opens after so many failures in
a row, or when too large a share of a sliding window failed.

Who sends a request calls `begin` and gives what it returns to `record`: answers to requests from before the
breaker's last change say nothing of now and are ignored.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from serving.config.admission import BreakerConfig
from serving.routing.directory import Replica

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


class Breaker:
    """The breaker of one replica, or of one model. Times are seconds of the caller's clock.

    Args:
        random: gives numbers from 0 to 1, for the jitter of open times.
    """

    def __init__(self, config: BreakerConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self._state: State = "closed"
        self._epoch = 0
        self._consecutive = 0
        # (step, requests, failures), the newest last; at most one for each step of the window.
        self._buckets: deque[list[int]] = deque()
        # Openings in a row; how many there were in all.
        self._streak = 0
        self._openings = 0
        self._closed_at_s = -math.inf
        self._retry_at_s = -math.inf
        self._probe_until_s = -math.inf

    @property
    def retry_at_s(self) -> float:
        """When the next probe may go: long ago, if the breaker is closed."""
        if self._state == "closed":
            return -math.inf
        return self._retry_at_s if self._state == "open" else self._probe_until_s

    def allows(self, now: float) -> bool:
        """Whether a request may be sent: in half-open only while no probe is out."""
        return self._state == "closed" or now >= self.retry_at_s

    def begin(self, now: float) -> int:
        """A request is sent now. Returns what `record` or `abandon` needs when it is over."""
        if self._state != "closed":
            if self._state == "open" and now >= self._retry_at_s:
                self._change("half_open")
            self._probe_until_s = now + self._config.probe_timeout_s
        return self._epoch

    def record(self, ok: bool, now: float, attempt: int) -> None:
        """A request has ended, well or not. What the client did wrong, or its leaving, is no failure."""
        if attempt != self._epoch:
            return
        if self._state != "closed":
            # It may also be one that was let through because there was nothing better.
            if ok:
                self._close(now)
            elif self._state == "half_open":
                self._open(now)
            return
        bucket = self._bucket(now)
        bucket[1] += 1
        bucket[2] += not ok
        self._consecutive = 0 if ok else self._consecutive + 1
        if not ok and self._is_broken():
            self._open(now)

    def broke(self, now: float) -> None:
        """An answer that had begun has stopped. It speaks of now, whenever the request was sent.

        While the breaker is not closed it says nothing: the probe decides, and old streams may still die.
        """
        if self._state == "closed":
            self.record(False, now, self._epoch)

    def abandon(self, now: float, attempt: int) -> None:
        """A request has ended and says nothing of the replica: its client left, say."""
        if attempt == self._epoch and self._state == "half_open":
            self._probe_until_s = now

    def snapshot(self, now: float) -> BreakerSnapshot:
        """What to show."""
        self._bucket(now)
        return BreakerSnapshot(
            state=self._state,
            consecutive_failures=self._consecutive,
            window_requests=sum(bucket[1] for bucket in self._buckets),
            window_failures=sum(bucket[2] for bucket in self._buckets),
            openings=self._openings,
            retry_in_s=max(0.0, self._retry_at_s - now) if self._state == "open" else 0.0,
        )

    # ---- inside ------------------------------------------------------------------------------------------

    def _is_broken(self) -> bool:
        if self._consecutive >= self._config.consecutive_failures:
            return True
        requests = sum(bucket[1] for bucket in self._buckets)
        failures = sum(bucket[2] for bucket in self._buckets)
        return (
            requests >= self._config.min_requests
            and failures >= self._config.failure_share * requests
        )

    def _open(self, now: float) -> None:
        # One that held for a whole window was well; what comes now is a new trouble.
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
            self._buckets.clear()

    def _bucket(self, now: float) -> list[int]:
        """The newest bucket, after those have gone that lie before the window."""
        step = int(now // (self._config.window_s / BUCKETS))
        while self._buckets and self._buckets[0][0] <= step - BUCKETS:
            self._buckets.popleft()
        if not self._buckets or self._buckets[-1][0] < step:
            self._buckets.append([step, 0, 0])
        return self._buckets[-1]


class Breakers:
    """The breakers of a gateway, one for each replica and one for each model, by id; made when asked for."""

    def __init__(self, config: BreakerConfig, random: Callable[[], float]) -> None:
        self._config = config
        self._random = random
        self.replicas: dict[str, Breaker] = {}
        self.models: dict[str, Breaker] = {}

    def replica(self, replica_id: str) -> Breaker:
        """The breaker of a replica."""
        return self._get(self.replicas, replica_id)

    def model(self, model_id: str) -> Breaker:
        """The breaker of a model as a whole: for choosing another model, never for trying nothing."""
        return self._get(self.models, model_id)

    def choose_allowed(self, replicas: Sequence[Replica], now: float) -> Sequence[Replica]:
        """The replicas that may be asked. If none may, the least bad one: whose next probe is due first.

        Empty only if `replicas` is.
        """
        breakers = self.replicas
        allowed = [
            replica
            for replica in replicas
            if (breaker := breakers.get(replica.id)) is None or breaker.allows(now)
        ]
        if allowed or not replicas:
            return allowed
        return [
            min(replicas, key=lambda replica: (breakers[replica.id].retry_at_s, replica.id)),
        ]

    def keep(self, replica_ids: Collection[str], model_ids: Collection[str]) -> None:
        """Forget all others: they are gone."""
        self.replicas = {name: one for name, one in self.replicas.items() if name in replica_ids}
        self.models = {name: one for name, one in self.models.items() if name in model_ids}

    def _get(self, breakers: dict[str, Breaker], name: str) -> Breaker:
        breaker = breakers.get(name)
        if breaker is None:
            breaker = breakers[name] = Breaker(self._config, self._random)
        return breaker
