"""The retry budget: a share of all requests in a sliding window, with a small floor, may be retried. Pure.

Without a bound, retries multiply the load just when there is too much of it. The budget is the one of
Finagle (https://finagle.github.io/blog/2016/02/08/retry-budgets/): each request deposits `share`, each retry
withdraws 1, both are forgotten after `window_s`, and `min_per_s` keeps small sites able to retry. See also
"Site Reliability Engineering" (Beyer et al., 2016), chapter 21, "Handling Overload".

A tenant may use the same share of a model's budget as its share of the requests, and at least one retry: so
no tenant's retries leave the others without. `serving.gateway.forwarding` alone spends it, for retries and
for hedges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.config.admission import RetryConfig

# The window moves in steps of one tenth of it.
BUCKETS = 10
# Ten requests at a share of 0.1 allow one retry, although 10 * 0.1 may come out just below 1.
_TOLERANCE = 1e-6


@dataclass(slots=True)
class _Count:
    requests: int = 0
    retries: int = 0


@dataclass(slots=True)
class _Bucket:
    """Counts of one step of the window, by tenant."""

    step: int
    counts: dict[str, _Count] = field(default_factory=dict)


class RetryBudget:
    """The budget of one gateway for one model. Times are seconds of the caller's clock."""

    def __init__(self, config: RetryConfig) -> None:
        self._share = config.share
        self._reserve = config.min_per_s * config.window_s
        self._step_s = config.window_s / BUCKETS
        # The newest last; at most one for each step of the window.
        self._buckets: deque[_Bucket] = deque()
        # The sums over the window, by tenant.
        self._tenants: dict[str, _Count] = {}
        self._requests = 0
        self._retries = 0
        self._refused = 0

    def request(self, now: float, tenant: str = "") -> None:
        """Count a request that is sent for the first time."""
        counts = self._bucket(now).counts
        count = counts.get(tenant)
        if count is None:
            count = counts[tenant] = _Count()
        count.requests += 1
        whole = self._tenants.get(tenant)
        if whole is None:
            whole = self._tenants[tenant] = _Count()
        whole.requests += 1
        self._requests += 1

    def can_retry(self, now: float, tenant: str = "") -> bool:
        """Whether a retry is left for the tenant; nothing is taken."""
        self._bucket(now)
        whole = self._share * self._requests + self._reserve + _TOLERANCE
        own = self._tenants.get(tenant) or _Count()
        if not own.retries and whole >= 1:
            return True
        share = own.requests / self._requests if self._requests else 1.0
        return own.retries + 1 <= whole * share and self._retries + 1 <= whole

    def try_retry(self, now: float, tenant: str = "") -> bool:
        """Take one retry out of the budget; False, and nothing is taken, if none is left."""
        if not self.can_retry(now, tenant):
            self._refused += 1
            return False
        self._bucket(now).counts.setdefault(tenant, _Count()).retries += 1
        self._tenants.setdefault(tenant, _Count()).retries += 1
        self._retries += 1
        return True

    def snapshot(self, now: float) -> Mapping[str, float]:
        """Requests and retries in the window, retries left, and retries refused since the start."""
        self._bucket(now)
        balance = self._share * self._requests + self._reserve - self._retries
        return {
            "requests": self._requests,
            "retries": self._retries,
            "left": int(max(0.0, balance + _TOLERANCE)),
            "refused": self._refused,
        }

    def _bucket(self, now: float) -> _Bucket:
        """The newest bucket, after those have gone that lie before the window."""
        step = int(now // self._step_s)
        while self._buckets and self._buckets[0].step <= step - BUCKETS:
            self._forget(self._buckets.popleft())
        if not self._buckets or self._buckets[-1].step < step:
            self._buckets.append(_Bucket(step))
        return self._buckets[-1]

    def _forget(self, bucket: _Bucket) -> None:
        for tenant, count in bucket.counts.items():
            self._requests -= count.requests
            self._retries -= count.retries
            whole = self._tenants[tenant]
            whole.requests -= count.requests
            whole.retries -= count.retries
            if not whole.requests and not whole.retries:
                del self._tenants[tenant]
