"""The gateway's Prometheus metrics: each decision counted, each time measured. Pure but for its own counters.

Labels are names from the configuration and fixed words, so that clients cannot make new series.
Naming: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# In the text format, 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """Counters of one gateway process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"comptoir_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"comptoir_{name}", text, labels, registry=registry, buckets=SECONDS)

        self.requests = counter(
            "requests", "Requests by the model that answered and HTTP status", "model", "status"
        )
        self.first_byte = seconds(
            "first_byte_seconds", "From the request's body to the answer's first bytes", "model"
        )
        self.duration = seconds("request_seconds", "Whole requests", "model")
        self.tokens = counter("tokens", "Tokens as the engines counted them", "model", "kind")
        self.broken_streams = counter("broken_streams", "Streams ended by an error event", "model")
        self.model_choices = counter(
            "model_choices",
            "Why a model was asked: named, alias, rule, fallback",
            "model",
            "reason",
        )
        self.failovers = counter(
            "failovers", "A stand-in was asked after this failure", "failed_model", "failure"
        )
        self.replica_choices = counter(
            "replica_choices", "Why a replica was chosen", "model", "policy", "reason"
        )
        self.retries = counter("retries", "Requests sent to another replica", "model")
        self.queue_wait = seconds(
            "queue_wait_seconds", "Time in the gateway's queue of a busy model", "model", "priority"
        )
        self.rejected = counter("rejected", "Requests refused with status 429, by reason", "reason")
        self._gauges: dict[str, Gauge] = {}

    def render(self, gauges: Iterable[tuple[str, dict[str, str], float]] = ()) -> bytes:
        """Everything in Prometheus' text format; `gauges` replace those of the last time."""
        for gauge in self._gauges.values():
            gauge.clear()
        for name, labels, value in gauges:
            gauge = self._gauges.get(name) or self._gauge(name, tuple(labels))
            gauge.labels(**labels).set(value)
        return generate_latest(self.registry)

    def _gauge(self, name: str, labels: tuple[str, ...]) -> Gauge:
        text = f"{name.replace('_', ' ')}, at the time of the scrape"
        made = Gauge(f"comptoir_{name}", text, labels, registry=self.registry)
        self._gauges[name] = made
        return made
