"""The gateway's Prometheus metrics: each decision counted, each time measured. Pure but for its own counters.

Labels are names from the configuration and fixed words, so that clients cannot make new series.
Naming: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.config.routing import Failure
from serving.telemetry.moment import MOMENT

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# In the text format, 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# How a request ended for the site: answered; its stream broke; 5xx; 429 for lack of room; other 4xx.
OUTCOMES = ("ok", "broken", "failed", "busy", "refused")
# Tokens are counted as these; the cached ones are part of the prompt's, those of reasoning of the output's.
TOKENS = ("prompt", "cached", "output", "reasoning")

# So many rows are made or written in one go.
PIECE_ROWS = 32

# One of the moment's values: its name in `MOMENT`, its labels, its value.
Moment = tuple[str, dict[str, str], float]


class GatewayMetrics:
    """Counters of one gateway process.

    Args:
        gateway: a label that tells gateways apart which share one port: a scrape meets any of them.
    """

    def __init__(self, gateway: str | None = None) -> None:
        self._label = {} if gateway is None else {"gateway": gateway}
        self._known: set[str] = set()
        self._tenants: dict[str, Mapping[str, Counter]] = {}
        self._models: dict[str, Mapping[str, Counter]] = {}
        self.registry = CollectorRegistry(auto_describe=True)
        self._process = ProcessCollector(registry=self.registry)
        # Each has labels; prometheus_client itself renders a family in one go.
        self._counted: list[Counter | Histogram] = []
        self._count_requests()
        self._count_choices()
        self._count_prefills()
        self._count_waiting()

    def _count_requests(self) -> None:
        """How requests ended, how long they took, and their tokens."""
        self.requests = self._counter(
            "requests", "Requests by the model that answered and HTTP status", "model", "status"
        )
        # At zero from the start: rates then show the first unexpected error.
        self.requests.labels("", "500")
        self.first_byte = self._seconds(
            "first_byte_seconds",
            "Time from the request's body to the answer's first bytes",
            "model",
        )
        self.ttft = self._seconds(
            "ttft_seconds", "Time from the request to the first bytes of a streamed answer", "model"
        )
        self.duration = self._seconds(
            "request_seconds", "Time from the request to the end of the answer", "model"
        )
        self.tokens = self._counter("tokens", "Tokens as the engines counted them", "model", "kind")
        self.broken_streams = self._counter(
            "broken_streams", "Streams ended by an error event", "model"
        )
        self.outcomes = self._counter(
            "outcomes",
            "Requests by the model that was asked last and how they ended",
            "model",
            "outcome",
        )
        self.tenant_outcomes = self._counter(
            "tenant_outcomes", "Requests by the key's name and how they ended", "tenant", "outcome"
        )
        self.tenant_tokens = self._counter(
            "tenant_tokens",
            "Tokens as the engines counted them, by the key's name",
            "tenant",
            "kind",
        )

    def _count_choices(self) -> None:
        """Which model and which replica, and why."""
        self.model_choices = self._counter(
            "model_choices",
            "Choices of a model by reason: named, alias, rule, fallback",
            "model",
            "reason",
        )
        self.failovers = self._counter(
            "failovers",
            "Requests passed to a fallback model, by the failure before",
            "failed_model",
            "failure",
        )
        self.replica_choices = self._counter(
            "replica_choices",
            "Choices of a replica by policy and reason",
            "model",
            "policy",
            "reason",
        )

    def _count_prefills(self) -> None:
        """Prompts that prefill replicas computed."""
        self.prefills = self._counter(
            "prefills",
            "Prompts of models with prefill replicas, by how they were computed",
            "model",
            "outcome",
        )
        self.prefill_choices = self._counter(
            "prefill_choices",
            "Choices of a prefill replica by policy and reason",
            "model",
            "policy",
            "reason",
        )
        self.prefill_tokens = self._counter(
            "prefill_tokens", "Tokens as prefill replicas' engines counted them", "model", "kind"
        )
        self.prefill_time = self._seconds(
            "prefill_seconds",
            "Time from asking a prefill replica to its answer, or to giving up",
            "model",
        )

    def _count_waiting(self) -> None:
        """Requests that waited, were sent again or were turned away."""
        self.held = self._counter(
            "held", "Requests held while no replica could be asked, by the reason", "model", "cause"
        )
        self.retries = self._counter("retries", "Requests sent to another replica", "model")
        self.queue_wait = self._seconds(
            "queue_wait_seconds", "Time in the gateway's queue of a busy model", "model", "priority"
        )
        self.rejected = self._counter(
            "rejected", "Requests refused with status 429, by reason", "reason"
        )
        self.dropped_fields = self._counter(
            "dropped_fields", "Requests that a field was left out of, by its name", "path", "field"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        made = Counter(f"comptoir_{name}", text, labels, registry=self.registry)
        self._counted.append(made)
        return _kept(made)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        made = Histogram(f"comptoir_{name}", text, labels, registry=self.registry, buckets=SECONDS)
        self._counted.append(made)
        return _kept(made)

    def render(self, moments: Iterable[Moment] = ()) -> bytes:
        """Everything in Prometheus' text format, and the moment's values."""
        return b"".join(self.parts(moments))

    def parts(
        self,
        moments: Iterable[Moment] = (),
        sees: Callable[[Mapping[str, str]], bool] | None = None,
    ) -> Iterator[bytes]:
        """The same in pieces of a fraction of a millisecond, some empty: between two, requests can be served.

        Args:
            sees: whether a row with these labels is for the reader; None: each is.
        """
        # First of all: it makes series of new models.
        families = _families()
        for name, labels, value in moments:
            if sees is None or sees(labels):
                families[name].add_sample(f"comptoir_{name}", labels | self._label, value)
            yield b""
        for family in self._process.collect():
            family.samples = [one for one in family.samples if sees is None or sees(one.labels)]
            for sample in family.samples:
                sample.labels.update(self._label)
            yield from _rendered(family, sees is None)
        for metric in self._counted:
            yield from self._children(metric, sees)
        for family in families.values():
            yield from _rendered(family, sees is None)

    def _children(
        self, metric: Counter | Histogram, sees: Callable[[Mapping[str, str]], bool] | None
    ) -> Iterator[bytes]:
        """A counted family: each row is looked at before anything is made for it."""
        family = next(iter(metric.describe()))
        for number, (values, child) in enumerate(list(metric._metrics.items())):
            labels = dict(zip(metric._labelnames, values, strict=True))
            if sees is None or sees(labels):
                for one in child._samples():
                    # When a series was made would be half of all lines, and nobody asks.
                    if one.name != "_created":
                        all_labels = labels | (one.labels or {}) | self._label
                        family.add_sample(metric._name + one.name, all_labels, one.value)
            if number % PIECE_ROWS == 0:
                yield b""
        yield from _rendered(family, sees is None)

    def tenant(self, name: str) -> Mapping[str, Counter]:
        """Counters of one tenant by outcome and by kind of token; all begin at zero.

        They are kept: finding them by their labels costs three times as much as counting.
        """
        if name not in self._tenants:
            outcomes = {each: self.tenant_outcomes.labels(name, each) for each in OUTCOMES}
            tokens = {each: self.tenant_tokens.labels(name, each) for each in TOKENS}
            self._tenants[name] = outcomes | tokens
        return self._tenants[name]

    def model_tokens(self, model: str) -> Mapping[str, Counter]:
        """Counters of one model by kind of token; kept, as those of tenants are."""
        if model not in self._models:
            self._models[model] = {each: self.tokens.labels(model, each) for each in TOKENS}
        return self._models[model]

    def figures(self, model: str) -> dict[str, float]:
        """One model since the start: requests, those that failed, and the times to first bytes."""

        def value(child: Counter | Histogram, ending: str) -> float:
            return sum(
                sample.value
                for metric in child.collect()
                for sample in metric.samples
                if sample.name.endswith(ending)
            )

        outcomes = {each: value(self.outcomes.labels(model, each), "_total") for each in OUTCOMES}
        # What another one took over: the model failed, though the client got its answer.
        over = sum(
            value(self.failovers.labels(model, each), "_total") for each in get_args(Failure)
        )
        first_byte = self.first_byte.labels(model)
        return {
            "requests": sum(outcomes.values()) + over,
            "failed": outcomes["failed"] + outcomes["broken"] + over,
            "first_byte_count": value(first_byte, "_count"),
            "first_byte_sum": value(first_byte, "_sum"),
        }

    def expect(self, model: str) -> None:
        """Begin the model's series at zero: one that appears with its first failure misses it in rates."""
        if model in self._known:
            return
        self._known.add(model)
        for outcome in OUTCOMES:
            self.outcomes.labels(model, outcome)
        for kind in TOKENS:
            self.tokens.labels(model, kind)
        for each in (self.ttft, self.first_byte, self.duration, self.retries, self.broken_streams):
            each.labels(model)


def _families() -> dict[str, Metric]:
    """Every family of the moment, those without a value too: it says what will be there."""
    return {
        name: (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(
            f"comptoir_{name}", text
        )
        for name, text in MOMENT.items()
    }


def _rendered(family: Metric, if_empty: bool) -> Iterator[bytes]:
    """Its head and its rows."""
    samples = family.samples
    if not samples and not if_empty:
        return
    for start in range(0, len(samples) or 1, PIECE_ROWS):
        family.samples = samples[start : start + PIECE_ROWS]
        text = generate_latest(_One(family))
        # The two lines of the head stand once.
        yield text.split(b"\n", 2)[2] if start else text


class _One(Collector):
    """One family, for `generate_latest`."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


_Labelled = TypeVar("_Labelled", Counter, Histogram)


def _kept(metric: _Labelled) -> _Labelled:
    """Keep the series of each set of labels: finding them costs more than counting, six times a request."""
    if metric._labelnames:
        setattr(metric, "labels", cache(metric.labels))  # noqa: B010 - mypy: a method
    return metric
