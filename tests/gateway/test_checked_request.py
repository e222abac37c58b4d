"""A request that waits is kept as text: the collector would look at objects of its body again and again."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

import orjson
import pytest

from serving.gateway import checked_request
from serving.gateway.admission import Estimate
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.tenant_semaphores import TenantSemaphores
from serving.gateway.turns import Turns
from serving.routing.features import features_of
from serving.settings import GatewayConfig, RequestLimits
from serving.tenancy.keys import ANONYMOUS
from serving.trust.fields import endpoints
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import SiteFactory

CHAT = endpoints(RequestLimits())["/v1/chat/completions"]
# No other list has so many members.
PARTS = 13
SMALL = {"model": "fake", "stream": False, "max_tokens": 4, "stop": "x" * 2000}
OWN = {"model": "other", "cache_salt": "salt"}


def body_of(messages: int) -> dict[str, object]:
    parts = [{"type": "text", "text": f"é {n}"} for n in range(PARTS)]
    return SMALL | {"messages": [{"role": "user", "content": list(parts)}] * messages}


def lists_alive() -> int:
    alive = gc.get_objects()
    return sum(1 for one in alive if isinstance(one, list) and len(one) == PARTS and one[0] == PART)


PART = {"type": "text", "text": "é 0"}


@pytest.mark.parametrize("turns", [None, Turns()])
@pytest.mark.parametrize("messages", [0, 1, 500])
async def test_packed_or_not_it_is_the_same_request(messages: int, turns: Turns | None) -> None:
    request = CheckedRequest(CHAT, ANONYMOUS, body_of(messages), "id", turns=turns)
    text, features, names = await request.text(OWN), request.features, set(request.names)
    tokens = request.tokens(text)
    await request.pack()
    await request.pack()
    assert await request.text(OWN) == text
    assert await request.whole(OWN) == body_of(messages) | OWN == orjson.loads(text)
    assert set(request.names) == names
    assert request.features == features
    # An estimate: the gateway's own fields are not of the client's prompt.
    assert abs(request.tokens(text)[0] - tokens[0]) < 100
    assert request.body == {"model": "fake", "stream": False, "max_tokens": 4}


@pytest.mark.parametrize("is_packed_first", [False, True])
async def test_features_are_looked_for_once(
    monkeypatch: pytest.MonkeyPatch, is_packed_first: bool
) -> None:
    looks: list[str] = []
    monkeypatch.setattr(
        checked_request,
        "features_of",
        lambda path, body: looks.append(path) or features_of(path, body),
    )
    request = CheckedRequest(CHAT, ANONYMOUS, body_of(3), "id")
    if is_packed_first:
        await request.pack()
    assert request.features == features_of(CHAT.path, body_of(3))
    await request.pack()
    assert request.features == features_of(CHAT.path, body_of(3))
    assert looks == [CHAT.path]


async def test_what_the_gateway_writes_is_never_the_clients() -> None:
    request = CheckedRequest(CHAT, ANONYMOUS, {"model": "m", "cache_salt": "y" * 5000}, "id")
    for _ in range(2):
        assert orjson.loads(await request.text(OWN)) == OWN
        assert await request.whole(OWN) == OWN
        await request.pack()


@pytest.mark.parametrize("messages", [20, 800])
@pytest.mark.parametrize("state", ["held", "queued", "answered"])
async def test_a_request_that_waits_holds_no_objects(
    make_site: SiteFactory, messages: int, state: str
) -> None:
    config = GatewayConfig.model_validate(
        {"admission": {"max_open_per_replica": 1, "min_open_per_replica": 1, "reserve_share": 0}}
    )
    site = await make_site(FakeEngine(first_token_s=60, keep_bodies=False), config=config)
    if state == "held":
        site.models["fake"] = replace(site.models["fake"], replicas=())
    elif state == "queued":
        await site.services.admission.acquire(site.models["fake"], ANONYMOUS, Estimate(1))
    services, places = site.services, 2 if state == "queued" else 1
    text = orjson.dumps(body_of(messages))
    asking = asyncio.create_task(
        site.client.post(
            "/v1/chat/completions", content=text, headers={"content-type": "application/json"}
        )
    )
    until = asyncio.get_running_loop().time() + 5
    while not (services.holding.held("fake") or services.admission.demand("fake") == places):
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.01)
    # The engine is in this process, too, and has its own.
    engines = messages if state == "answered" else 0
    while lists_alive() > engines:
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.01)
    assert not asking.done()
    asking.cancel()


async def test_of_one_tenant_few_large_bodies_are_in_objects() -> None:
    semaphores, inside, most = TenantSemaphores(), 0, 0

    async def work(tenant: str) -> None:
        nonlocal inside, most
        async with semaphores.hold(tenant):
            inside += tenant == "a"
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= tenant == "a"

    held = [asyncio.create_task(work("a")) for _ in range(20)]
    await asyncio.sleep(0)
    # Nobody waits for another tenant's, and who leaves while waiting takes no place along.
    await asyncio.wait_for(work("b"), 1)
    held[10].cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert most == 2
    assert not semaphores._semaphores
