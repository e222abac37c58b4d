"""/status and /metrics show every decision, and nobody's secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serving.config.admission import RetryConfig
from serving.replica_facts import ReplicaStats
from serving.replica_protocol import Usage
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import TOKEN, Site, SiteFactory

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "canary-77"}]}


class CountingEngine(FakeEngine):
    """Says at a stream's end what it counted, as replicas do."""

    async def _stream(self, body: dict[str, Any], tokens: int) -> AsyncIterator[bytes]:
        async for event in super()._stream(body, tokens):
            yield event
        yield Usage(prompt_tokens=7, cached_tokens=3, output_tokens=tokens).as_event()


async def samples(site: Site, **headers: str) -> dict[str, float]:
    response = await site.client.get("/metrics", headers=headers)
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_status_shows_policy_queue_breakers_and_retries(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(), FakeEngine())
    await site.client.post("/v1/chat/completions", json=CHAT)
    response = await site.client.get("/status")
    fake = next(one for one in response.json()["models"] if one["id"] == "fake")
    assert (fake["state"], fake["policy"], fake["breaker"]) == ("ready", "prefix", "closed")
    assert fake["admission"]["admitted"] == 1
    assert fake["retries"]["requests"] == 1
    assert [one["in_flight"] for one in fake["replicas"]] == [0, 0]
    assert {one["breaker"]["state"] for one in fake["replicas"]} == {"closed"}
    assert TOKEN not in response.text
    assert "127.0.0.1" not in response.text
    assert "canary-77" not in response.text


async def test_status_is_for_the_models_of_the_key(make_site: SiteFactory) -> None:
    keys = (KeyConfig(name="a", hash=hash_key("sk-a"), models=("sleeping",)),)
    site = await make_site(config=GatewayConfig(keys=keys))
    assert (await site.client.get("/status")).status_code == 401
    assert (await site.client.get("/metrics")).status_code == 401
    headers = {"authorization": "Bearer sk-a"}
    models = (await site.client.get("/status", headers=headers)).json()["models"]
    assert [one["id"] for one in models] == ["sleeping"]
    found = await samples(site, **headers)
    assert "comptoir_replicas|sleeping" in found
    assert "comptoir_replicas|fake" not in found


async def test_metrics_count_what_was_decided(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(), gone=1)
    for _ in range(4):
        await site.client.post("/v1/chat/completions", json=CHAT)
    await site.client.post("/v1/chat/completions", json=CHAT | {"model": "canary-78"})
    found = await samples(site)
    assert found["comptoir_requests_total|fake|200"] == 4
    assert found["comptoir_first_byte_seconds_count|fake"] == 4
    assert found["comptoir_model_choices_total|fake|named"] == 4
    assert found["comptoir_requests_total||404"] == 1
    assert sum(v for k, v in found.items() if k.startswith("comptoir_replica_choices_total")) >= 4
    assert found["comptoir_replicas|fake"] == 2
    assert found["comptoir_breaker_state|fake|replica-0"] == 0
    assert not [name for name in found if "canary" in name]


async def test_a_broken_stream_is_counted(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(break_after=2))
    await site.client.post("/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 9})
    assert (await samples(site))["comptoir_broken_streams_total|fake"] == 1


async def test_metrics_say_how_requests_ended(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(break_after=2))
    before = await samples(site)
    assert before["comptoir_outcomes_total|fake|failed"] == 0
    await site.client.post("/v1/chat/completions", json=CHAT)
    await site.client.post("/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 9})
    site.engines[0].status = 400
    await site.client.post("/v1/chat/completions", json=CHAT)
    await site.client.post("/v1/chat/completions", json=CHAT | {"model": "sleeping"})
    found = await samples(site)
    ended = {
        name: value
        for name, value in found.items()
        if value and name.startswith(("comptoir_outcomes_total", "comptoir_tenant_outcomes_total"))
    }
    assert ended == {
        "comptoir_outcomes_total|fake|ok": 1,
        "comptoir_outcomes_total|fake|broken": 1,
        "comptoir_outcomes_total|fake|refused": 1,
        "comptoir_outcomes_total|sleeping|failed": 1,
        "comptoir_tenant_outcomes_total|ok|local": 1,
        "comptoir_tenant_outcomes_total|broken|local": 1,
        "comptoir_tenant_outcomes_total|refused|local": 1,
        "comptoir_tenant_outcomes_total|failed|local": 1,
    }


async def test_only_streams_have_a_time_to_the_first_token(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine())
    await site.client.post("/v1/chat/completions", json=CHAT)
    await site.client.post("/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 2})
    found = await samples(site)
    assert found["comptoir_ttft_seconds_count|fake"] == 1
    assert found["comptoir_first_byte_seconds_count|fake"] == 2


async def test_tokens_are_counted_for_the_name_of_the_key(make_site: SiteFactory) -> None:
    config = GatewayConfig(keys=(KeyConfig(name="shop", hash=hash_key("k")),))
    site = await make_site(CountingEngine(), config=config)
    headers = {"authorization": "Bearer k"}
    await site.client.post(
        "/v1/chat/completions", json=CHAT | {"stream": True, "max_tokens": 5}, headers=headers
    )
    found = await samples(site, **headers)
    assert found["comptoir_tenant_tokens_total|output|shop"] == 5
    assert found["comptoir_tenant_tokens_total|prompt|shop"] == 7


async def test_metrics_show_engines_as_they_reported(make_site: SiteFactory) -> None:
    site = await make_site()
    stats = {"running": 3.0, "kv_cache_use": 0.25, "generated_tokens": 900.0, "start_s": 40.5}
    site.models["fake"] = replace(
        site.models["fake"],
        replicas=(replace(site.models["fake"].replicas[0], stats=ReplicaStats.parse(stats)),),
        wanted={"RUNNING": 1, "STARTING": 2, "STOPPING": 4},
    )
    found = await samples(site)
    where = "|fake|replica-0"
    assert found[f"comptoir_engine_running{where}"] == 3
    assert found[f"comptoir_engine_kv_cache_use{where}"] == 0.25
    assert found[f"comptoir_engine_generated_tokens_total{where}"] == 900
    assert found[f"comptoir_engine_start_seconds{where}"] == 40.5
    assert (found["comptoir_replicas|fake"], found["comptoir_replicas_wanted|fake"]) == (1, 3)
    assert found["comptoir_application_state|sleeping|DEPLOYING"] == 1
    assert found["comptoir_replicas_wanted|sleeping"] == 0


async def test_metrics_show_breakers_and_retries(make_site: SiteFactory) -> None:
    retries = RetryConfig(share=0, min_per_s=0)
    engines = FakeEngine(error_after=0), FakeEngine(error_after=0)
    site = await make_site(*engines, config=GatewayConfig(retries=retries))
    for _ in range(10):
        await site.client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    found = await samples(site)
    assert found["comptoir_retries_refused_total|fake"] == 10
    assert found["comptoir_retry_budget_left|fake"] == 0
    assert found["comptoir_outcomes_total|fake|failed"] == 10
    # The engines live, and nobody else has answered: the requests may be to blame.
    assert sum(found[f"comptoir_breaker_openings_total|fake|replica-{n}"] for n in (0, 1)) == 0


async def holds(site: Site, requests: int) -> None:
    """Wait until the gateway holds so many."""
    for _ in range(500):
        if site.services.holding.held("fake") == requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never does")


async def test_metrics_and_status_show_breakers_and_what_is_held(make_site: SiteFactory) -> None:
    site = await make_site(dead=True)
    asking = [
        asyncio.create_task(site.client.post("/v1/chat/completions", json=CHAT)) for _ in range(6)
    ]
    await holds(site, 6)
    (fake,) = [m for m in (await site.client.get("/status")).json()["models"] if m["id"] == "fake"]
    assert fake["held"] == 6
    found = await samples(site)
    assert found["comptoir_requests_held|fake"] == 6
    assert found["comptoir_held_total|unreachable|fake"] == 6
    assert found["comptoir_breaker_openings_total|fake|replica-0"] == 1
    assert found["comptoir_model_breaker_state|fake"] == 2
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await holds(site, 0)


async def test_gateways_that_share_a_port_are_told_apart(make_site: SiteFactory) -> None:
    site = await make_site(config=GatewayConfig(replicas=2))
    text = (await site.client.get("/metrics")).text
    samples_ = [one for family in text_string_to_metric_families(text) for one in family.samples]
    assert len({one.labels["gateway"] for one in samples_}) == 1
    assert "gateway=" not in (await (await make_site()).client.get("/metrics")).text
