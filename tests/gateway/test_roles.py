"""What a key may do: ask models, read all metrics, see all of the site; each refused by name elsewhere."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.config.keys import Scope
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
PATHS = ("/v1/models", "/v1/models/fake", "/status", "/metrics")
INFERENCE_PATHS = ("/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")


def key(name: str, *scopes: Scope, models: tuple[str, ...] = ("*",)) -> KeyConfig:
    return KeyConfig(name=name, hash=hash_key(name), scopes=scopes or ("inference",), models=models)


CONFIG = GatewayConfig(
    keys=(
        key("acme", models=("fake",)),
        key("other"),
        key("prometheus", "metrics", models=("sleeping",)),
        key("boss", "operator", models=("sleeping",)),
        key("both", "operator", "inference"),
    )
)


def headers(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


async def get(site: Site, path: str, name: str) -> httpx.Response:
    return await site.client.get(path, headers=headers(name))


async def chat(site: Site, name: str, path: str = "/v1/chat/completions") -> httpx.Response:
    return await site.client.post(path, json=CHAT, headers=headers(name))


def rows(response: httpx.Response) -> list[dict[str, str]]:
    families = text_string_to_metric_families(response.text)
    return [dict(sample.labels) for family in families for sample in family.samples]


async def test_a_metrics_key_reads_all_metrics_and_nothing_else(make_site: SiteFactory) -> None:
    site = await make_site(config=CONFIG)
    await chat(site, "acme")
    await chat(site, "other")
    scrape = await get(site, "/metrics", "prometheus")
    assert scrape.headers["x-comptoir-view"] == "site"
    assert {row["tenant"] for row in rows(scrape) if "tenant" in row} == {"acme", "other"}
    assert any("replica" in row for row in rows(scrape))
    assert "process_resident_memory_bytes" in scrape.text
    for path in PATHS[:-1]:
        response = await get(site, path, "prometheus")
        assert (response.status_code, response.json()["error"]["code"]) == (403, "scope_missing")
        assert "'inference'" in response.json()["error"]["message"]
    for path in INFERENCE_PATHS:
        assert (await chat(site, "prometheus", path)).status_code == 403
    assert len(site.engines[0].bodies) == 2


async def test_a_missing_scope_is_said_in_the_dialect_of_the_path(make_site: SiteFactory) -> None:
    site = await make_site(config=CONFIG)
    ours = (await chat(site, "prometheus")).json()["error"]
    assert (ours["type"], ours["code"]) == ("permission_error", "scope_missing")
    theirs = (await chat(site, "prometheus", "/v1/messages")).json()
    assert (theirs["type"], theirs["error"]["type"]) == ("error", "permission_error")
    for error in (ours, theirs["error"]):
        assert error["message"].startswith("this API key lacks the scope 'inference'")


async def test_a_tenant_sees_its_own_rows_and_the_models_that_it_may_use(
    make_site: SiteFactory,
) -> None:
    site = await make_site(FakeEngine(), FakeEngine(), config=CONFIG)
    for name in ("acme", "other"):
        await chat(site, name)
    await chat(site, "other", "/v1/nothing")
    scrape = await get(site, "/metrics", "acme")
    assert scrape.headers["x-comptoir-view"] == "tenant"
    found = rows(scrape)
    assert {row["tenant"] for row in found if "tenant" in row} == {"acme"}
    assert {row["model"] for row in found if "model" in row} == {"fake"}
    assert not any("replica" in row for row in found)
    assert all("tenant" in row or "model" in row for row in found)
    assert '"other"' not in scrape.text
    assert "sleeping" not in scrape.text
    assert "process_" not in scrape.text


async def test_failovers_from_a_model_that_a_tenant_may_not_use_are_not_its_rows(
    make_site: SiteFactory,
) -> None:
    site = await make_site(config=CONFIG)
    site.services.metrics.failovers.labels("fake", "unhealthy").inc()
    site.services.metrics.failovers.labels("sleeping", "unhealthy").inc()
    scrape = await get(site, "/metrics", "acme")
    assert {row["failed_model"] for row in rows(scrape) if "failed_model" in row} == {"fake"}


async def test_status_shows_a_tenant_states_and_an_operator_everything(
    make_site: SiteFactory,
) -> None:
    site = await make_site(FakeEngine(), FakeEngine(), config=CONFIG)
    await chat(site, "other")
    mine = await get(site, "/status", "acme")
    assert mine.json() == {
        "view": "tenant",
        "models": [{"id": "fake", "state": "ready", "replicas": []}],
    }
    all_of_it = (await get(site, "/status", "boss")).json()
    assert all_of_it["view"] == "site"
    assert [one["id"] for one in all_of_it["models"]] == ["fake", "sleeping"]
    assert len(all_of_it["models"][0]["replicas"]) == 2
    assert all_of_it["models"][0]["admission"]["admitted"] == 1


async def test_an_operator_reads_all_metrics_and_asks_no_model(make_site: SiteFactory) -> None:
    site = await make_site(config=CONFIG)
    assert "process_" in (await get(site, "/metrics", "boss")).text
    assert (await chat(site, "boss")).json()["error"]["code"] == "scope_missing"
    assert (await chat(site, "both")).status_code == 200


async def test_without_keys_everyone_sees_everything(make_site: SiteFactory) -> None:
    site = await make_site()
    for path in PATHS:
        assert (await site.client.get(path)).status_code == 200
    assert (await site.client.get("/status")).json()["view"] == "site"
    assert "process_" in (await site.client.get("/metrics")).text


@pytest.mark.parametrize("path", ["/status", "/metrics", "/v1/models", "/v1/models/fake"])
async def test_a_page_that_needs_a_key_says_so(make_site: SiteFactory, path: str) -> None:
    site = await make_site(config=CONFIG)
    for sent in ({}, headers("nobody")):
        response = await site.client.get(path, headers=sent)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
