"""The handlers' dependencies, built once and passed down."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.config.metering import MeteringConfig
from serving.discovery.directory import Directory
from serving.gateway.admission import Admission
from serving.gateway.bills import Bills
from serving.gateway.collector import Collector
from serving.gateway.dispatch import Dispatcher
from serving.gateway.dropped import DroppedFields
from serving.gateway.forwarding import Forwarder
from serving.gateway.holding import Holding
from serving.gateway.journal import Journal
from serving.gateway.open_requests import OpenRequests
from serving.gateway.prefill import Prefill
from serving.gateway.upstream import PAUSE_MARGIN_S, Upstream
from serving.settings import GatewayConfig
from serving.telemetry.metrics import GatewayMetrics
from serving.tenancy.bills import BillSink, NoSink
from serving.tenancy.keys import KeyRing
from serving.trust.endpoint import Endpoint
from serving.trust.fields import endpoints


@dataclass(frozen=True)
class Rules:
    """The rules for a request. A change replaces them as a whole: a request keeps those it began with."""

    config: GatewayConfig
    keys: KeyRing
    endpoints: Mapping[str, Endpoint]

    @classmethod
    def of(cls, config: GatewayConfig) -> Rules:
        """Those of a configuration."""
        return cls(config, KeyRing(config.keys), endpoints(config.limits))


@dataclass
class Services:
    """The gateway's collaborators."""

    rules: Rules
    directory: Callable[[], Directory]
    upstream: Upstream
    forwarder: Forwarder
    prefill: Prefill
    admission: Admission
    holding: Holding
    dispatcher: Dispatcher
    metrics: GatewayMetrics
    bills: Bills
    collector: Collector
    dropped: DroppedFields
    # What the other gateways say of what they have asked models.
    elsewhere: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    open_requests: OpenRequests = field(default_factory=OpenRequests)
    # What of the last changes was refused, by where it stood; the configuration before stays in force.
    refused_changes: dict[str, str] = field(default_factory=dict)
    # The gateway is about to stop: balancers must send no more requests here.
    is_leaving: bool = False
    # When `/ready` was asked last, in `time.monotonic`'s seconds: by a balancer, most likely.
    probed_s: float = -math.inf

    @property
    def config(self) -> GatewayConfig:
        """The configuration in force."""
        return self.rules.config

    @property
    def keys(self) -> KeyRing:
        """The keys in force."""
        return self.rules.keys

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The endpoints that models answer, with the checks in force."""
        return self.rules.endpoints

    def apply(self, config: GatewayConfig) -> None:
        """Go on with another configuration: keys, limits, routing, admission; the rest needs a new process.

        Requests that no replica has begun to answer stop when their key is gone; others go on.
        """
        rules = Rules.of(config)
        self.dispatcher.reroute(config.routing)
        self.admission.reconfigure(config.admission)
        self.holding.reconfigure(config.admission)
        self.rules = rules
        self.bills.learn(rules.keys.names)
        self.open_requests.end(rules.keys.refusal)

    @classmethod
    def build(
        cls,
        config: GatewayConfig,
        directory: Callable[[], Directory],
        wake: Callable[[str], None] = lambda model_id: None,
        elsewhere: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
    ) -> Services:
        """Compose everything a gateway needs around a directory of models."""
        upstream = Upstream(
            connect_timeout_s=config.connect_timeout_s,
            response_timeout_s=config.response_timeout_s,
            # The listener ends clients that stand still; this, those that hardly move.
            pause_timeout_s=config.connections.write_stall_s + PAUSE_MARGIN_S,
        )
        # Gateways of one node share its port, and a scrape meets any of them.
        metrics = GatewayMetrics(uuid.uuid4().hex[:8] if config.replicas > 1 else None)
        rules = Rules.of(config)
        bills = Bills(metrics, rules.keys.names)
        forwarder = Forwarder(directory, upstream, config, metrics, bills=bills)
        prefill = Prefill(directory, config, metrics, bills=bills)
        admission = Admission(config.admission, directory, config.replicas)
        holding = Holding(config.admission, directory, wake, forwarder.can_ask, metrics)
        return cls(
            rules=rules,
            bills=bills,
            directory=directory,
            upstream=upstream,
            forwarder=forwarder,
            prefill=prefill,
            admission=admission,
            holding=holding,
            dispatcher=Dispatcher(
                config, directory, forwarder, prefill, admission, holding, metrics, bills
            ),
            metrics=metrics,
            dropped=DroppedFields(metrics),
            collector=Collector(
                bills,
                directory,
                upstream,
                _sink(config.metering, bills.gateway),
                config.metering.collect_period_s,
            ),
            elsewhere=elsewhere,
        )

    async def start(self) -> None:
        """Start the services before the first request."""
        await self.collector.start()

    async def stop(self) -> None:
        """Settle the last bills, then close every connection to replicas."""
        await self.collector.stop()
        await self.upstream.stop()
        await self.prefill.upstream.stop()


def _sink(config: MeteringConfig, gateway: str) -> BillSink:
    return NoSink() if config.journal is None else Journal(config.journal, gateway)
