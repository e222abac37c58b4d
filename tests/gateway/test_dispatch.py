"""A request goes along its route: to an arm, to a stand-in before the first byte, never past its key."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from serving.config.routing import RoutingConfig
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory

MESSAGES = [{"role": "user", "content": "hello"}]


def routed(**routing: Any) -> GatewayConfig:
    return GatewayConfig(routing=RoutingConfig.model_validate(routing))


async def chat(site: Site, model: str, headers: Any = None, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES} | fields
    return await site.client.post("/v1/chat/completions", json=body, headers=headers)


async def test_an_alias_leads_to_its_arm_and_the_answer_says_so(make_site: SiteFactory) -> None:
    site = await make_site(config=routed(aliases={"chat": "fake"}))
    response = await chat(site, "chat")
    assert response.status_code == 200
    assert response.headers["x-comptoir-model"] == "fake"
    assert response.headers["x-comptoir-route"] == "alias"
    assert site.engines[0].bodies[0]["model"] == "fake"
    listed = (await site.client.get("/v1/models")).json()["data"]
    assert "chat" in [card["id"] for card in listed]
    assert (await site.client.get("/v1/models/chat")).json()["id"] == "chat"


async def test_a_model_that_does_not_answer_is_stood_in_for(make_site: SiteFactory) -> None:
    site = await make_site(config=routed(fallbacks={"sleeping": {"to": ["fake"]}}))
    response = await chat(site, "sleeping", stream=True, max_tokens=3)
    assert response.status_code == 200
    assert response.headers["x-comptoir-model"] == "fake"
    assert response.headers["x-comptoir-route"] == "fallback"
    assert "three" in response.text


async def test_a_prompt_that_is_too_long_goes_to_a_model_with_a_longer_context(
    make_site: SiteFactory,
) -> None:
    short = FakeEngine(status=400, error_message="maximum context length is 10 tokens")
    routing = {"fallbacks": {"fake": {"to": ["sleeping"], "after": ["context"]}}}
    site = await make_site(short, config=routed(**routing))
    # The stand-in sleeps here: its own error shows that it was asked.
    assert (await chat(site, "fake")).json()["error"]["code"] == "model_unavailable"


@pytest.mark.parametrize("status", [400, 500])
async def test_what_is_wrong_with_the_request_is_no_reason_to_ask_another(
    make_site: SiteFactory, status: int
) -> None:
    engine = FakeEngine(status=status, error_message="no")
    site = await make_site(engine, config=routed(fallbacks={"fake": {"to": ["sleeping"]}}))
    assert (await chat(site, "fake")).status_code == (502 if status == 500 else 400)
    assert len(engine.bodies) == 1


async def test_a_key_is_not_led_past_its_models(make_site: SiteFactory) -> None:
    key = KeyConfig(name="a", hash=hash_key("sk-a"), models=("sleeping",))
    config = GatewayConfig(
        keys=(key,), routing=RoutingConfig.model_validate({"aliases": {"chat": "fake"}})
    )
    site = await make_site(config=config)
    headers = {"authorization": "Bearer sk-a"}
    assert (await chat(site, "chat", headers)).status_code == 403
    listed = (await site.client.get("/v1/models", headers=headers)).json()["data"]
    assert [card["id"] for card in listed] == ["sleeping"]


async def test_sessions_keep_their_arm(make_site: SiteFactory) -> None:
    arms = [{"model": "fake", "weight": 1}, {"model": "sleeping", "weight": 1}]
    site = await make_site(config=routed(aliases={"chat": arms}))
    seen: dict[str, set[int]] = {}
    for number in range(24):
        for _ in range(2):
            response = await chat(site, "chat", {"x-comptoir-session": f"s{number}"})
            seen.setdefault(f"s{number}", set()).add(response.status_code)
    assert all(len(statuses) == 1 for statuses in seen.values())
    assert {status for statuses in seen.values() for status in statuses} == {200, 503}


async def test_a_deprecated_name_answers_and_says_what_follows(make_site: SiteFactory) -> None:
    lifetime = {
        "deprecated_on": "2020-01-01",
        "retired_on": "2999-01-01",
        "successor": "sleeping",
    }
    site = await make_site(config=routed(models={"fake": lifetime}))
    response = await chat(site, "fake")
    assert response.headers["deprecation"] == "@1577836800"
    assert response.headers["sunset"].startswith("Tue, 01 Jan 2999")
    assert "successor-version" in response.headers["link"]
    card = (await site.client.get("/v1/models/fake")).json()
    assert (card["retired_on"], card["successor"]) == ("2999-01-01", "sleeping")


async def test_auto_chooses_by_what_the_request_needs(make_site: SiteFactory) -> None:
    routing = {
        "models": {"fake": {"cost": 1, "capabilities": ["tools"]}, "sleeping": {"cost": 0.1}},
        "auto": [
            {"name": "tools", "when": {"tools": True}, "choose": {"need": ["tools"]}},
            {"name": "default", "models": ["sleeping"]},
        ],
    }
    site = await make_site(config=routed(**routing))
    tool = {"type": "function", "function": {"name": "f"}}
    response = await chat(site, "auto", tools=[tool])
    assert response.headers["x-comptoir-model"] == "fake"
    assert response.headers["x-comptoir-route"] == "rule"
    assert (await chat(site, "auto")).status_code == 503
    assert orjson.loads(response.content)["choices"]


# ---- a busy model ------------------------------------------------------------------------------------


def narrow(**admission: Any) -> GatewayConfig:
    """A gateway that lets one request at a time through to each replica."""
    bounds = {"max_open_per_replica": 1, "min_open_per_replica": 1} | admission
    return GatewayConfig.model_validate({"admission": bounds})


async def test_requests_wait_for_a_busy_model_and_are_answered(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(first_token_s=0.05), config=narrow())
    answers = await asyncio.gather(*(chat(site, "fake", max_tokens=1) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    (queue,) = [one for one in site.services.admission.snapshots() if one.model_id == "fake"]
    assert (queue.admitted, queue.open, queue.waits["standard"]) == (4, 0, 3)
    text = (await site.client.get("/metrics")).text
    assert 'comptoir_queue_wait_seconds_count{model="fake",priority="standard"} 3.0' in text


async def test_over_the_queue_there_is_a_429_that_says_when_to_come_back(
    make_site: SiteFactory,
) -> None:
    site = await make_site(FakeEngine(first_token_s=0.3), config=narrow(max_waiting=1))
    answers = await asyncio.gather(*(chat(site, "fake", max_tokens=1) for _ in range(4)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 2
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_deadline_is_kept_and_a_wrong_one_refused(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(first_token_s=0.5), config=narrow())
    first = asyncio.create_task(chat(site, "fake", max_tokens=1))
    await asyncio.sleep(0.1)
    began = asyncio.get_running_loop().time()
    late = await chat(site, "fake", {"x-comptoir-deadline-ms": "100"}, max_tokens=1)
    assert late.status_code == 429
    assert asyncio.get_running_loop().time() - began < 0.35
    wrong = await chat(site, "fake", {"x-comptoir-deadline-ms": "soon"}, max_tokens=1)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-comptoir-deadline-ms")
    assert (await first).status_code == 200


async def test_a_stream_that_waits_gets_signs_of_life(make_site: SiteFactory) -> None:
    site = await make_site(FakeEngine(first_token_s=0.3), config=narrow(keep_alive_s=0.05))
    first = asyncio.create_task(chat(site, "fake", max_tokens=1))
    await asyncio.sleep(0.05)
    second = await chat(site, "fake", stream=True, max_tokens=2)
    assert (await first).status_code == 200
    assert second.status_code == 200
    assert second.text.startswith(": waiting\n\n")
    assert second.text.endswith("data: [DONE]\n\n")
    assert "two" in second.text


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_held_while_no_replica_is_there_is_answered_when_one_is(
    make_site: SiteFactory, stream: bool
) -> None:
    config = GatewayConfig.model_validate({"admission": {"keep_alive_s": 0.02}})
    site = await make_site(config=config)
    model = site.models["fake"]
    site.models["fake"] = replace(model, replicas=(), state="UNHEALTHY")
    asking = asyncio.create_task(chat(site, "fake", stream=stream, max_tokens=2))
    await asyncio.sleep(0.15)
    assert not asking.done()
    site.models["fake"] = model
    answer = await asking
    assert answer.status_code == 200
    assert "two" in answer.text
    assert answer.text.startswith(": waiting\n\n") is stream


async def test_a_busy_model_is_stood_in_for_where_that_is_configured(
    make_site: SiteFactory,
) -> None:
    routing = {"fallbacks": {"fake": {"to": ["sleeping"], "after": ["saturated"]}}}
    config = GatewayConfig.model_validate(
        {"routing": routing, "admission": narrow(max_waiting=0).admission.model_dump()}
    )
    site = await make_site(FakeEngine(first_token_s=0.3), config=config)
    answers = await asyncio.gather(*(chat(site, "fake", max_tokens=1) for _ in range(2)))
    # The stand-in sleeps: that its own error is seen says that it was asked.
    assert sorted(answer.status_code for answer in answers) == [200, 503]


async def queues(site: Site, requests: int) -> None:
    """Wait until so many wait for the model."""
    for _ in range(1000):
        if site.services.admission.queued("fake") == requests:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never does")


async def test_a_client_that_leaves_the_queue_leaves_no_trace(make_site: SiteFactory) -> None:
    engine = FakeEngine(first_token_s=60)
    site = await make_site(engine, config=narrow())
    first = asyncio.create_task(chat(site, "fake", max_tokens=1))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(chat(site, "fake", max_tokens=1))
    await queues(site, 1)
    waiting.cancel()
    await queues(site, 0)
    assert len(engine.bodies) == 1
    engine.first_token_s = 0.0
    first.cancel()
    assert (await chat(site, "fake", max_tokens=1)).status_code == 200
    assert len(engine.bodies) == 2
