"""What the gateway's /metrics and /status say of a rollout's two revisions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serving.errors import StackError


@dataclass(frozen=True)
class Figures:
    """One revision, since its gateway started: requests it was given, and how they went."""

    requests: int = 0
    failed: int = 0
    first_byte_s: float | None = None

    @property
    def error_share(self) -> float | None:
        """Of its requests; None without any."""
        return self.failed / self.requests if self.requests else None


def figures(text: str, model: str) -> Figures:
    """Read them from a scrape.

    A request that another model took over counts here as failed, although its client got an answer: that
    is what one wants to know of a canary. So does a stream that broke, and nothing that the client did wrong.

    Raises:
        StackError: this is no scrape of a gateway.
    """
    seen: defaultdict[str, float] = defaultdict(float)
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        raise StackError("the endpoint's /metrics is not in Prometheus' format") from None
    for family in families:
        for sample in family.samples:
            if model in (sample.labels.get("model"), sample.labels.get("failed_model")):
                seen[sample.name] += sample.value
                if sample.name == "comptoir_outcomes_total":
                    seen[sample.labels["outcome"]] += sample.value
    taken_over = seen["comptoir_failovers_total"]
    first_bytes = seen["comptoir_first_byte_seconds_count"]
    return Figures(
        requests=int(seen["comptoir_outcomes_total"] + taken_over),
        failed=int(seen["failed"] + seen["broken"] + taken_over),
        first_byte_s=seen["comptoir_first_byte_seconds_sum"] / first_bytes if first_bytes else None,
    )


def open_requests(status: Mapping[str, Any], model: str) -> int:
    """Requests that wait for a model or are being answered, as a gateway and the engines know them."""
    for one in status.get("models", ()):
        if one.get("id") == model:
            queue = one.get("admission") or {}
            waiting = sum((queue.get("queue") or {}).get("waiting", {}).values())
            at_replicas = sum(
                # This gateway's own count is current; the replica's knows the other gateways.
                max(int(each.get("in_flight", 0)), int(each.get("open_requests", 0)))
                for each in one.get("replicas", ())
            )
            return int(waiting) + at_replicas
    return 0


def is_ready(status: Mapping[str, Any], model: str) -> bool:
    """Whether the gateway can send requests to a model; one that sleeps counts, it wakes for them."""
    return any(
        one.get("id") == model and one.get("state") in ("ready", "idle")
        for one in status.get("models", ())
    )
