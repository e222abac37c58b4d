"""How many requests may be sent again: a share of all of them over a sliding window, and a small floor. Pure.

Without a bound, retries multiply the load just when there is too much of it. The budget is the one of
Finagle (https://finagle.github.io/blog/2016/02/08/retry-budgets/): each request deposits `share`, each retry
withdraws 1, both are forgotten after `window_s`, and `min_per_s` keeps small sites able to retry. See also
"Site Reliability Engineering" (Beyer et al., 2016), chapter 21, "Handling Overload".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from serving.config.admission import RetryConfig

# The window moves in steps of one tenth of it.
BUCKETS = 10
# Ten requests at a share of 0.1 allow one retry, although 10 * 0.1 may come out just below 1.
_TOLERANCE = 1e-6


class RetryBudget:
    """The budget of one gateway for one model. Times are seconds of the caller's clock."""

    def __init__(self, config: RetryConfig) -> None:
        self._share = config.share
        self._reserve = config.min_per_s * config.window_s
        self._step_s = config.window_s / BUCKETS
        # (step, requests, retries), the newest last; at most one for each step of the window.
        self._buckets: deque[list[int]] = deque()
        self._requests = 0
        self._retries = 0
        self._refused = 0

    def request(self, now: float) -> None:
        """A request was sent for the first time."""
        self._bucket(now)[1] += 1
        self._requests += 1

    def try_retry(self, now: float) -> bool:
        """Take one retry out of the budget; False, and nothing is taken, if there is none."""
        bucket = self._bucket(now)
        if self._balance + _TOLERANCE < 1:
            self._refused += 1
            return False
        bucket[2] += 1
        self._retries += 1
        return True

    def snapshot(self, now: float) -> Mapping[str, float]:
        """Requests and retries in the window, retries left, and retries refused since the start."""
        self._bucket(now)
        return {
            "requests": self._requests,
            "retries": self._retries,
            "left": int(max(0.0, self._balance + _TOLERANCE)),
            "refused": self._refused,
        }

    @property
    def _balance(self) -> float:
        return self._share * self._requests + self._reserve - self._retries

    def _bucket(self, now: float) -> list[int]:
        """The newest bucket, after those have gone that lie before the window."""
        step = int(now // self._step_s)
        while self._buckets and self._buckets[0][0] <= step - BUCKETS:
            _, requests, retries = self._buckets.popleft()
            self._requests -= requests
            self._retries -= retries
        if not self._buckets or self._buckets[-1][0] < step:
            self._buckets.append([step, 0, 0])
        return self._buckets[-1]
