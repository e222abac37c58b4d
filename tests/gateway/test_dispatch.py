"""A request goes along its route: to an arm, to a stand-in before the first byte, never past its key."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from serving.config.routing import RoutingConfig
from serving.engine.fake_engine import FakeEngine
from serving.settings import GatewayConfig, KeyConfig, hash_key
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
