"""A gateway with real sockets whose engines count, and traffic in which everything happens once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx

from serving.replica_facts import ReplicaStats
from serving.replica_protocol import Usage
from serving.settings import GatewayConfig
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory, make_site

__all__ = ["CountingEngine", "Traffic", "make_site", "site_config"]

# One request at a time and a queue for two: a few at once wait, and some are turned away.
NARROW = {
    "max_open_per_replica": 2,
    "min_open_per_replica": 1,
    "max_waiting": 4,
    "max_waiting_per_tenant": 4,
    "max_wait_s": 5,
    "reserve_share": 0,
}


class CountingEngine(FakeEngine):
    """Says at a stream's end what it counted, as replicas do."""

    async def _stream(self, body: dict[str, Any], tokens: int) -> AsyncIterator[bytes]:
        async for event in super()._stream(body, tokens):
            yield event
        yield Usage(prompt_tokens=7, cached_tokens=3, output_tokens=tokens).as_event()


def site_config(**more: Any) -> GatewayConfig:
    """Narrow queues; `sleeping` has a stand-in."""
    routing = {"fallbacks": {"sleeping": {"to": ["fake"]}}, "aliases": {"chat": "fake"}}
    return GatewayConfig.model_validate({"admission": NARROW, "routing": routing} | more)


class Traffic:
    """Requests to a site, and what its replicas report meanwhile."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sent = 0

    async def once(self, count: int = 12, **fields: Any) -> list[httpx.Response]:
        """So many requests at once."""
        body = {"model": "fake", "messages": [{"role": "user", "content": "canary-91"}]}
        body |= {"stream": True, "max_tokens": 4} | fields
        self.sent += count
        self.report()
        post = self.site.client.post
        return await asyncio.gather(
            *(post("/v1/chat/completions", json=body) for _ in range(count))
        )

    async def everything(self) -> None:
        """Each kind of request and failure: turned away, refused, retried, failed, stood in for."""
        engines = self.site.engines
        await self.once()
        await self.once(3, model="sleeping")
        await self.once(2, model="chat")
        await self.once(2, model="canary-92")
        engines[0].status = 400
        await self.once(2, stream=False)
        engines[0].status = 200
        engines[0].error_after = 0
        await self.once(3)
        engines[0].error_after = None

    def report(self) -> None:
        """What Serve would bring along: numbers of engines, states of replicas."""
        model = self.site.models["fake"]
        stats = {
            "running": 1.0,
            "waiting": 0.0,
            "open_requests": 1.0,
            "kv_cache_use": 0.5,
            "tokens_per_s": 40.0,
            "start_s": 41.0,
            "prompt_tokens": 100.0 + 7 * self.sent,
            "generated_tokens": 100.0 + 4 * self.sent,
            "prefix_queried_tokens": 100.0 + 7 * self.sent,
            "prefix_hit_tokens": 10.0 + self.sent,
            "preemptions": 1.0,
        }
        replicas = tuple(
            replace(replica, stats=ReplicaStats.parse(stats)) for replica in model.replicas
        )
        wanted = {"RUNNING": len(replicas), "STARTING": 1}
        self.site.models["fake"] = replace(model, replicas=replicas, wanted=wanted)


async def busy_site(make: SiteFactory, **more: Any) -> tuple[Site, Traffic]:
    """A gateway with two engines, and its traffic."""
    engines = CountingEngine(interval_s=0.005), CountingEngine(interval_s=0.005)
    site = await make(*engines, config=site_config(**more))
    return site, Traffic(site)
