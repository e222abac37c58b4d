"""Fair queues and their entries for tests, in one line."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

from serving.admission.fair_queue import FairQueue
from serving.admission.fair_shares import Entry
from serving.config.admission import AdmissionConfig, Priority

# A busy machine is no failure.
unhurried = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def queue(**keys: Any) -> FairQueue:
    return FairQueue(AdmissionConfig(**keys))


def entry(tenant: str = "a", priority: Priority = "standard", **fields: Any) -> Entry:
    fields = {"prompt_tokens": 100, "max_output_tokens": 0} | fields
    return Entry(tenant, priority, **fields)


def offered(line: FairQueue, one: Entry, now: float = 0.0) -> Entry:
    assert line.offer(one, now) is None
    return one


def serve(line: FairQueue, times: int, now: float = 0.0) -> list[str]:
    """Dispatch so many and finish each as it was estimated; the tenants in their order."""
    served = []
    for _ in range(times):
        one = line.next(now)
        assert one is not None
        line.finished(one)
        served.append(one.tenant)
    return served
