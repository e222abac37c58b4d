"""No token is lost: whole answers, streams, aborts, gateways that die and replicas that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from serving.discovery.directory import Directory, Model, Replica
from serving.engine import metering
from serving.gateway.bills import Bills
from serving.gateway.collector import MAX_FAILURES, Collector
from serving.gateway.upstream import Upstream
from serving.replica_facts import ModelCard, ReplicaStats
from serving.settings import GatewayConfig, KeyConfig, hash_key
from serving.telemetry.metrics import GatewayMetrics
from serving.tenancy.bills import BilledTo, NoSink
from tests.gateway.conftest import Site, SiteFactory
from tests.gateway.metered import PROMPT_TOKENS, MeteredEngine

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "fake", "messages": MESSAGES, "max_tokens": 5}
KEYS = (KeyConfig(name="acme", hash=hash_key("sk-a")),)
KEY = {"authorization": "Bearer sk-a"}
ABORTS = {"stream": True, "max_tokens": 10_000}

# Every kind of request that models answer: path, body, task of the model.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", CHAT, "chat"),
    "chat stream": ("/v1/chat/completions", CHAT | {"stream": True}, "chat"),
    "n=2": ("/v1/chat/completions", CHAT | {"n": 2}, "chat"),
    "completions": ("/v1/completions", {"model": "fake", "prompt": "x", "max_tokens": 5}, "chat"),
    "completions stream": (
        "/v1/completions",
        {"model": "fake", "prompt": "x", "max_tokens": 5, "stream": True},
        "chat",
    ),
    "responses": ("/v1/responses", {"model": "fake", "input": "x"}, "chat"),
    "messages": ("/v1/messages", CHAT, "chat"),
    "messages stream": ("/v1/messages", CHAT | {"stream": True}, "chat"),
    "embeddings": ("/v1/embeddings", {"model": "fake", "input": ["x", "y"]}, "embed"),
    "rerank": ("/v1/rerank", {"model": "fake", "query": "x", "documents": ["y"]}, "rerank"),
    "score": ("/v1/score", {"model": "fake", "text_1": "x", "text_2": "y"}, "rerank"),
}


class Sink(NoSink):
    """Remembers what was recorded; fails if it is told to."""

    def __init__(self) -> None:
        self.lines: list[BilledTo] = []
        self.fails = False

    async def record(self, bills: Sequence[BilledTo]) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        self.lines += bills

    def tokens(self, kind: str) -> int:
        by_id = {line.bill.id: line.bill for line in self.lines}
        return sum(getattr(bill.usage, f"{kind}_tokens") for bill in by_id.values())


def with_sink(site: Site, sink: Sink) -> Collector:
    collector = site.services.collector
    collector._sink = sink
    return collector


def another_gateway(site: Site, directory: Callable[[], Directory], sink: Sink) -> Collector:
    bills = Bills(GatewayMetrics(), site.services.keys.names)
    upstream = Upstream(connect_timeout_s=0.5, response_timeout_s=5)
    return Collector(bills, directory, upstream, sink, 1.0)


async def tokens(site: Site, tenant: str = "acme") -> dict[str, float]:
    registry = site.services.metrics.registry
    return {
        kind: registry.get_sample_value(
            "comptoir_tenant_tokens_total", {"tenant": tenant, "kind": kind}
        )
        or 0.0
        for kind in ("prompt", "cached", "output")
    }


async def abort_after(site: Site, events: int, path: str = "/v1/chat/completions") -> None:
    """A client that leaves its stream."""
    body = CHAT | ABORTS
    async with site.client.stream("POST", path, json=body, headers=KEY) as response:
        async for _ in response.aiter_lines():
            events -= 1
            if not events:
                break


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_request_is_metered(make_site: SiteFactory, kind: str) -> None:
    path, body, task = KINDS[kind]
    engine = MeteredEngine()
    site = await make_site(engine, task=task, config=GatewayConfig(keys=KEYS))
    response = await site.client.post(path, json=body, headers=KEY)
    assert response.status_code == 200, response.text
    assert "comptoir-usage" not in response.text
    assert "x-comptoir-usage" not in response.headers
    found = await tokens(site)
    assert (found["prompt"], found["output"]) == (
        engine.counted["prompt"],
        engine.counted["output"],
    )
    assert found["prompt"] >= PROMPT_TOKENS
    sink = Sink()
    await with_sink(site, sink).collect()
    (line,) = sink.lines
    assert (line.tenant, line.bill.path, line.bill.outcome) == ("acme", path, "ok")
    assert engine.meter.stats()["kept_bills"] == 0, "it was acknowledged"


async def test_what_an_aborted_stream_cost_reaches_its_tenant(make_site: SiteFactory) -> None:
    engine = MeteredEngine(interval_s=0.002)
    site = await make_site(engine, config=GatewayConfig(keys=KEYS))
    await abort_after(site, 4)
    await until(lambda: engine.meter.stats()["kept_bills"] == 1)
    assert (await tokens(site))["output"] == 0
    sink = Sink()
    await with_sink(site, sink).collect()
    found = await tokens(site)
    assert (found["prompt"], found["output"]) == (PROMPT_TOKENS, engine.counted["output"])
    assert found["output"] > 0
    assert [line.bill.outcome for line in sink.lines] == ["aborted"]
    await site.services.collector.collect()
    assert engine.meter.stats()["kept_bills"] == 0


async def test_an_aborted_stream_is_charged_what_the_engine_counted(make_site: SiteFactory) -> None:
    engine = MeteredEngine(interval_s=0.002)
    site = await make_site(engine, config=GatewayConfig(keys=KEYS))
    await abort_after(site, 4)
    shares = site.services.admission._queues["fake"].fair._shares["standard"]
    estimated = shares.accounts["acme"].counter
    await until(lambda: engine.meter.stats()["kept_bills"] == 1)
    await site.services.collector.collect()
    # An output token counts twice a prompt token.
    assert shares.accounts["acme"].counter == PROMPT_TOKENS + 2 * engine.counted["output"]
    assert shares.accounts["acme"].counter < estimated


async def test_a_gateway_that_dies_loses_nothing(
    make_site: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "LEASE_S", 0.05)
    engine = MeteredEngine(interval_s=0.002, meter=metering.Meter("fake"))
    engine.meter._lease_s = 0.05
    site = await make_site(engine, config=GatewayConfig(keys=KEYS))
    # Both ways, and never collected by this gateway.
    await site.client.post("/v1/chat/completions", json=CHAT, headers=KEY)
    await abort_after(site, 3)
    await until(lambda: engine.meter.stats()["unclaimed_bills"] == 2)
    model = site.models["fake"]
    sink = Sink()

    def directory() -> Directory:
        stats = ReplicaStats(**engine.meter.stats())
        replicas = tuple(replace(one, stats=stats) for one in model.replicas)
        return Directory([replace(model, replicas=replicas)])

    other = another_gateway(site, directory, sink)
    await other.collect()
    assert sink.tokens("prompt") == engine.counted["prompt"]
    assert sink.tokens("output") == engine.counted["output"]
    assert {line.tenant for line in sink.lines} == {"acme"}
    await other.collect()
    assert engine.meter.stats()["kept_bills"] == 0


async def test_a_replica_that_leaves_is_asked_until_it_has_gone(make_site: SiteFactory) -> None:
    engine = MeteredEngine()
    site = await make_site(engine)
    directory = [Directory(site.models.values())]
    sink = Sink()
    other = another_gateway(site, lambda: directory[0], sink)
    await other.collect()
    # It has no request of this gateway, and is listed no more.
    await site.client.post("/v1/chat/completions", json=CHAT)
    engine.meter._lease_s = 0.0
    directory[0] = Directory([])
    await other.collect()
    assert len(sink.lines) == 1
    (desk,) = other._bills.due()
    desk.replica = Replica(desk.replica.id, "http://127.0.0.1:9", "t")
    for _ in range(MAX_FAILURES):
        await other.collect()
    assert other._bills.due() == []


async def test_nobody_is_asked_while_nothing_happens(make_site: SiteFactory) -> None:
    asked: list[str] = []

    class Noting(Upstream):
        async def post(self, replica: Replica, *args: Any, **kwargs: Any) -> Any:
            asked.append(replica.id)
            return await super().post(replica, *args, **kwargs)

    replica = Replica("r", "http://127.0.0.1:9", "t", ReplicaStats.parse({"unclaimed_bills": 0.0}))
    directory = Directory([Model("m", ModelCard(), (replica,))])
    upstream = Noting(connect_timeout_s=0.5, response_timeout_s=5)
    collector = Collector(Bills(GatewayMetrics()), lambda: directory, upstream, Sink(), 1.0)
    await collector.collect()
    assert asked == []


async def test_what_cannot_be_recorded_stays_with_the_replica(make_site: SiteFactory) -> None:
    engine = MeteredEngine()
    site = await make_site(engine, config=GatewayConfig(keys=KEYS))
    sink = Sink()
    collector = with_sink(site, sink)
    sink.fails = True
    await site.client.post("/v1/chat/completions", json=CHAT, headers=KEY)
    await collector.collect()
    assert engine.meter.stats()["kept_bills"] == 1
    sink.fails = False
    await collector.collect()
    assert engine.meter.stats()["kept_bills"] == 0
    assert len(sink.lines) == 1
    assert (await tokens(site))["output"] == 5, "counted once"


async def test_a_gateway_that_stops_settles_first(make_site: SiteFactory) -> None:
    engine = MeteredEngine(interval_s=0.002)
    site = await make_site(engine, config=GatewayConfig(keys=KEYS))
    sink = Sink()
    collector = with_sink(site, sink)
    await collector.start()
    await site.client.post("/v1/chat/completions", json=CHAT, headers=KEY)
    await abort_after(site, 3)
    await until(lambda: engine.meter.stats()["kept_bills"] == 2)
    await site.services.stop()
    assert sink.tokens("output") == engine.counted["output"]
    assert engine.meter.stats()["kept_bills"] == 0


async def test_a_request_that_the_engine_refuses_costs_nothing(make_site: SiteFactory) -> None:
    engine = MeteredEngine(status=400)
    site = await make_site(engine, config=GatewayConfig(keys=KEYS))
    response = await site.client.post("/v1/chat/completions", json=CHAT, headers=KEY)
    assert response.status_code == 400
    sink = Sink()
    await with_sink(site, sink).collect()
    assert sink.lines == []
