"""What a handler needs, built once and passed down."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serving.gateway.admission import Admission
from serving.gateway.dispatch import Dispatcher
from serving.gateway.forwarding import Forwarder
from serving.gateway.prefill import Prefill
from serving.gateway.upstream import Upstream
from serving.gateway.waking import Waking
from serving.observability.metrics import GatewayMetrics
from serving.routing.directory import Directory
from serving.settings import GatewayConfig
from serving.tenancy.keys import KeyRing
from serving.trust.fields import Endpoint, endpoints


@dataclass(frozen=True)
class Services:
    """The gateway's collaborators."""

    config: GatewayConfig
    keys: KeyRing
    endpoints: Mapping[str, Endpoint]
    directory: Callable[[], Directory]
    upstream: Upstream
    forwarder: Forwarder
    prefill: Prefill
    admission: Admission
    dispatcher: Dispatcher
    metrics: GatewayMetrics

    @classmethod
    def build(
        cls,
        config: GatewayConfig,
        directory: Callable[[], Directory],
        wake: Callable[[str], None] = lambda model_id: None,
    ) -> Services:
        """Compose everything a gateway needs around a directory of models."""
        upstream = Upstream(
            connect_timeout_s=config.connect_timeout_s,
            response_timeout_s=config.response_timeout_s,
        )
        # Gateways of one node share its port, and a scrape meets any of them.
        metrics = GatewayMetrics(uuid.uuid4().hex[:8] if config.replicas > 1 else None)
        forwarder = Forwarder(directory, upstream, config, metrics, wake=wake)
        prefill = Prefill(directory, config, metrics)
        admission = Admission(config.admission, directory, config.replicas)
        waking = Waking(config.admission, directory, wake)
        return cls(
            config=config,
            keys=KeyRing(config.keys),
            endpoints=endpoints(config.limits),
            directory=directory,
            upstream=upstream,
            forwarder=forwarder,
            prefill=prefill,
            admission=admission,
            dispatcher=Dispatcher(
                config, directory, forwarder, prefill, admission, waking, metrics
            ),
            metrics=metrics,
        )

    async def stop(self) -> None:
        """Close every connection to replicas."""
        await self.upstream.stop()
        await self.prefill.upstream.stop()
