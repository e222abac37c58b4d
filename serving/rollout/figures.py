"""What the gateway's /metrics and /status say of a rollout's two revisions. Pure."""

from __future__ import annotations

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

    A request that another model took over counts here as failed, although its client got an answer: that is
    what one wants to know of a canary. So does a stream that broke.

    Raises:
        StackError: this is no scrape of a gateway.
    """
    answered = errors = taken_over = broken = first_bytes = first_byte_sum = 0.0
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        raise StackError("the endpoint's /metrics is not in Prometheus' format") from None
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            if model not in (labels.get("model"), labels.get("failed_model")):
                continue
            if sample.name == "comptoir_requests_total":
                answered += sample.value
                errors += sample.value if labels["status"] >= "500" else 0
            elif sample.name == "comptoir_failovers_total":
                taken_over += sample.value
            elif sample.name == "comptoir_broken_streams_total":
                broken += sample.value
            elif sample.name == "comptoir_first_byte_seconds_count":
                first_bytes += sample.value
            elif sample.name == "comptoir_first_byte_seconds_sum":
                first_byte_sum += sample.value
    mean = first_byte_sum / first_bytes if first_bytes else None
    return Figures(int(answered + taken_over), int(errors + taken_over + broken), mean)


def open_requests(status: Mapping[str, Any], model: str) -> int:
    """Requests that wait for a model or are being answered, as a gateway and the engines know them."""
    for one in status.get("models", ()):
        if one.get("id") == model:
            queue = one.get("admission") or {}
            waiting = int((queue.get("queue") or {}).get("waiting", 0))
            at_replicas = sum(
                # This gateway's own count is current; the replica's knows the other gateways.
                max(int(each.get("in_flight", 0)), int(each.get("open_requests", 0)))
                for each in one.get("replicas", ())
            )
            return waiting + at_replicas
    return 0


def is_ready(status: Mapping[str, Any], model: str) -> bool:
    """Whether the gateway can send requests to a model; one that sleeps counts, it wakes for them."""
    return any(
        one.get("id") == model and one.get("state") in ("ready", "idle")
        for one in status.get("models", ())
    )
