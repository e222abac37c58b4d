"""A long prompt visits two replicas, a short one does not, and no failure on the way is the client's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from serving.discovery.directory import Replica
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory

CARD = {"prefill_min_tokens": 100}
LONG = "word " * 200
PARAMS = "kv_transfer_params"


async def chat(site: Site, text: str = LONG, **fields: Any) -> httpx.Response:
    body = {"model": "fake", "messages": [{"role": "user", "content": text}]} | fields
    return await site.client.post("/v1/chat/completions", json=body)


def prefills(site: Site) -> dict[str, float]:
    """How prompts were computed, by outcome."""
    return {
        sample.labels["outcome"]: sample.value
        for family in site.services.metrics.prefills.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def test_a_long_prompt_is_computed_by_one_replica_and_answered_by_another(
    make_site: SiteFactory,
) -> None:
    decode, prefill = FakeEngine(), FakeEngine()
    site = await make_site(decode, prefill=[prefill], card=CARD)
    response = await chat(site, stream=True, max_tokens=3, stream_options={"include_usage": True})
    said = [word in response.text for word in ("one ", "three ", "four ")]
    assert said == [True, True, False]
    (asked,) = prefill.bodies
    assert asked[PARAMS] == {"do_remote_decode": True, "do_remote_prefill": False}
    assert (asked["max_tokens"], "stream" in asked) == (1, False)
    (answered,) = decode.bodies
    assert answered[PARAMS] == prefill.keeps
    assert (answered["max_tokens"], answered["stream"]) == (3, True)
    assert answered["messages"] == asked["messages"]
    assert prefills(site) == {"handed": 1}


async def test_neither_the_client_nor_its_bill_sees_that_there_were_two(
    make_site: SiteFactory,
) -> None:
    site = await make_site(FakeEngine(), prefill=[FakeEngine()], card=CARD)
    response = await chat(site, max_tokens=3)
    assert "remote" not in response.text
    assert response.json().get(PARAMS) is None
    (requests,) = site.services.metrics.requests.collect()
    counted = {
        one.labels["model"]: one.value for one in requests.samples if one.name.endswith("_total")
    }
    assert counted["fake"] == 1.0


@pytest.mark.parametrize(("fields", "outcome"), [({"text": "short"}, "short"), ({"n": 2}, "unfit")])
async def test_what_is_not_worth_it_or_cannot_be_handed_over_goes_straight_to_an_answer(
    make_site: SiteFactory, fields: dict[str, Any], outcome: str
) -> None:
    decode, prefill = FakeEngine(), FakeEngine()
    site = await make_site(decode, prefill=[prefill], card=CARD)
    assert (await chat(site, **fields)).status_code == 200
    assert prefill.bodies == []
    assert PARAMS not in decode.bodies[0]
    assert prefills(site) == {outcome: 1}


async def test_a_model_without_prefill_replicas_is_not_counted(make_site: SiteFactory) -> None:
    site = await make_site()
    assert (await chat(site)).status_code == 200
    assert prefills(site) == {}


@pytest.mark.parametrize(
    "broken",
    [
        FakeEngine(status=400, error_message="too long"),
        FakeEngine(status=500),
        FakeEngine(status=503),
        FakeEngine(keeps={}),
        FakeEngine(keeps={"do_remote_prefill": True, "remote_block_ids": []}),
        None,
    ],
    ids=["400", "500", "503", "keeps nothing", "no blocks", "nobody there"],
)
async def test_when_a_prefill_replica_fails_the_answering_one_computes_the_prompt(
    make_site: SiteFactory, broken: FakeEngine | None
) -> None:
    decode = FakeEngine()
    site = await make_site(decode, prefill=[broken] if broken else [], card=CARD)
    response = await chat(site, max_tokens=3)
    assert response.status_code == 200
    assert PARAMS not in decode.bodies[0]
    assert prefills(site) == {"failed": 1}


async def test_a_prefill_replica_that_is_gone_is_left_alone_for_a_while(
    make_site: SiteFactory,
) -> None:
    prefill = FakeEngine()
    site = await make_site(prefill=[prefill], card=CARD)
    # Nobody listens on port 9 of the loopback interface.
    gone = Replica("gone", "http://127.0.0.1:9", "t")
    model = site.models["fake"]
    site.models["fake"] = replace(model, prefill=(gone, *model.prefill))
    for _ in range(6):
        assert (await chat(site, max_tokens=1)).status_code == 200
    assert prefills(site).get("failed", 0) <= 1
    assert prefills(site)["handed"] >= 5


async def test_one_that_lives_and_fails_for_several_keys_is_left_alone_and_never_for_one(
    make_site: SiteFactory,
) -> None:
    keys = tuple(KeyConfig(name=name, hash=hash_key(f"sk-{name}")) for name in "ab")
    config = GatewayConfig.model_validate(
        {
            "keys": [key.model_dump() for key in keys],
            "breaker": {"consecutive_failures": 2, "open_s": 60, "max_open_s": 60},
        }
    )
    prefill = FakeEngine(status=500)
    site = await make_site(FakeEngine(), prefill=[prefill], card=CARD, config=config)
    for name, asked in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 4)):
        site.client.headers["authorization"] = f"Bearer sk-{name}"
        assert (await chat(site, max_tokens=1)).status_code == 200
        assert len(prefill.bodies) == asked


async def test_one_that_takes_too_long_loses_the_prompt(make_site: SiteFactory) -> None:
    slow, decode = FakeEngine(first_token_s=30), FakeEngine()
    config = GatewayConfig(prefill_timeout_s=0.2)
    site = await make_site(decode, prefill=[slow], card=CARD, config=config)
    assert (await chat(site, max_tokens=1)).status_code == 200
    assert PARAMS not in decode.bodies[0]
    await until(lambda: slow.aborted == 1)


async def test_a_computed_prompt_is_offered_once(make_site: SiteFactory) -> None:
    # The first replica may have fetched it before it failed, and then it is there no more.
    broken, prefill = FakeEngine(error_after=0), FakeEngine()
    site = await make_site(broken, FakeEngine(error_after=0), prefill=[prefill], card=CARD)
    response = await chat(site, stream=True, max_tokens=2)
    assert response.status_code == 502
    asked = [body for engine in site.engines for body in engine.bodies]
    assert [PARAMS in body for body in asked].count(True) == 1
    assert len(asked) == 2
    assert len(prefill.bodies) == 1


async def test_only_a_replica_of_the_same_build_is_told_where_a_prompt_is(
    make_site: SiteFactory,
) -> None:
    # While a changed file is rolled out: their weights may differ, and nothing would notice.
    old, new = FakeEngine(), FakeEngine()
    site = await make_site(old, new, prefill=[FakeEngine()], card=CARD)
    model = site.models["fake"]
    (prefill,), (first, second) = model.prefill, model.replicas
    new_prefill = (replace(prefill, build="new"),)
    both = (replace(first, build="old"), replace(second, build="new"))
    site.models["fake"] = replace(model, prefill=new_prefill, replicas=both)
    for _ in range(4):
        assert (await chat(site, max_tokens=1)).status_code == 200
    assert old.bodies == []
    assert all(PARAMS in body for body in new.bodies)
    site.models["fake"] = replace(model, prefill=new_prefill, replicas=both[:1])
    assert (await chat(site, max_tokens=1)).status_code == 200
    assert [PARAMS in body for body in old.bodies] == [False]


async def test_when_the_client_leaves_the_prompt_is_no_longer_computed(
    make_site: SiteFactory,
) -> None:
    prefill, decode = FakeEngine(first_token_s=30), FakeEngine()
    site = await make_site(decode, prefill=[prefill], card=CARD)
    asking = asyncio.create_task(chat(site))
    await until(lambda: prefill.running == 1)
    asking.cancel()
    await until(lambda: prefill.aborted == 1)
    assert decode.bodies == []
    assert not site.services.prefill.forwarder.in_flight


async def test_clients_cannot_say_where_a_prompt_is(make_site: SiteFactory) -> None:
    decode, prefill = FakeEngine(), FakeEngine()
    site = await make_site(decode, prefill=[prefill], card=CARD)
    response = await chat(site, **{PARAMS: {"do_remote_prefill": True, "remote_host": "10.0.0.1"}})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == PARAMS
    assert decode.bodies == prefill.bodies == []


async def test_the_prompts_beginning_chooses_the_prefill_replica(make_site: SiteFactory) -> None:
    one, other, decode = FakeEngine(), FakeEngine(), FakeEngine()
    site = await make_site(decode, prefill=[one, other], card=CARD)
    beginning = "chapter one. " * 400
    for turn in range(4):
        await chat(site, beginning + str(turn), max_tokens=1)
    assert sorted([len(one.bodies), len(other.bodies)]) == [0, 4]
    reasons = {
        sample.labels["reason"]
        for family in site.services.metrics.prefill_choices.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert reasons == {"load", "prefix"}


async def test_status_and_metrics_show_who_computes_prompts(make_site: SiteFactory) -> None:
    site = await make_site(prefill=[FakeEngine()], card=CARD)
    await chat(site, max_tokens=1)
    models = (await site.client.get("/status")).json()["models"]
    found = {model["id"]: model["prefill"] for model in models}
    assert found["sleeping"] is None
    assert found["fake"]["min_prompt_tokens"] == 100
    assert [one["id"] for one in found["fake"]["replicas"]] == ["prefill-0"]
    page = (await site.client.get("/metrics")).text
    assert 'comptoir_prefill_replicas{model="fake"} 1.0' in page
    assert 'comptoir_prefill_seconds_count{model="fake"} 1.0' in page
    assert 'comptoir_in_flight{model="fake",replica="prefill-0"} 0.0' in page


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")
