"""/status and /metrics show every decision, and nobody's secrets."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serving.engine.fake_engine import FakeEngine
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.gateway.conftest import TOKEN, Site, SiteFactory

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "canary-77"}]}


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
    assert "comptoir_replicas|fake" in await samples(site, **headers)


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
