"""Requests that are ended from outside: their key is revoked, or the gateway's time to stop is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from serving.config.admission import AdmissionConfig
from serving.gateway.inference import leaving
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
# One request at a time: the next one waits in the queue.
ONE = AdmissionConfig(max_open_per_replica=1, min_open_per_replica=1, keep_alive_s=0.02)


def config(*names: str, **fields: Any) -> GatewayConfig:
    keys = tuple(KeyConfig(name=name, hash=hash_key(name)) for name in names)
    return GatewayConfig(keys=keys, admission=ONE, **fields)


class HeldEngine(FakeEngine):
    """Says one word, and the rest when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def _stream(self, body: dict[str, Any], tokens: int) -> Any:
        first = True
        async for event in super()._stream(body, tokens):
            yield event
            if first:
                await self.let_go.wait()
            first = False


def ask(
    site: Site, key: str, path: str = "/v1/chat/completions", **fields: Any
) -> asyncio.Task[Any]:
    headers = {"authorization": f"Bearer {key}"}
    body = CHAT | {"max_tokens": 4} | fields
    return asyncio.create_task(site.client.post(path, json=body, headers=headers))


async def until(is_so: Callable[[], Any]) -> None:
    for _ in range(400):
        if is_so():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not come to that")


def waiting(site: Site) -> int:
    return site.services.admission.queued("fake")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_waits_stops_when_its_key_is_revoked(
    make_site: SiteFactory, streamed: bool
) -> None:
    engine = HeldEngine()
    site = await make_site(engine, config=config("a", "b"))
    running = ask(site, "b", stream=True)
    await until(lambda: engine.bodies)
    revoked, kept = ask(site, "a", stream=streamed), ask(site, "b", stream=True)
    await until(lambda: waiting(site) == 2)
    if streamed:
        await asyncio.sleep(0.05)
    site.services.apply(config("b"))
    response = await revoked
    if streamed:
        assert response.status_code == 200
        assert response.text.startswith(": waiting\n\n")
        assert "revoked" in response.text.splitlines()[-2]
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert waiting(site) == 1
    engine.let_go.set()
    for one in await asyncio.gather(running, kept):
        assert one.text.endswith("data: [DONE]\n\n")
    assert len(engine.bodies) == 2
    assert (await ask(site, "a")).status_code == 401


async def test_an_answer_that_has_begun_outlives_its_key(make_site: SiteFactory) -> None:
    engine = HeldEngine()
    site = await make_site(engine, config=config("a", "b"))
    running = ask(site, "a", stream=True)
    await until(lambda: any(one.has_begun for one in site.services.open_requests))
    site.services.apply(config("b"))
    engine.let_go.set()
    assert (await running).text.endswith("data: [DONE]\n\n")
    assert not site.services.open_requests


async def test_a_key_that_is_no_longer_for_inference_waits_no_more(make_site: SiteFactory) -> None:
    engine = HeldEngine()
    site = await make_site(engine, config=config("a", "b"))
    running = ask(site, "b", stream=True)
    await until(lambda: engine.bodies)
    revoked = ask(site, "a")
    await until(lambda: waiting(site) == 1)
    keys = (KeyConfig(name="a", hash=hash_key("a"), scopes=("metrics",)), *config("b").keys)
    site.services.apply(GatewayConfig(keys=keys, admission=ONE))
    assert (await revoked).json()["error"]["code"] == "scope_missing"
    engine.let_go.set()
    await running


def end_all(site: Site) -> None:
    """What the listener does with those that are open when it waits no longer."""
    for one in tuple(site.services.open_requests):
        one.end(leaving())


async def test_a_stream_that_is_left_at_the_end_gets_an_error_event(make_site: SiteFactory) -> None:
    engine = HeldEngine()
    site = await make_site(engine)
    streams = [
        ask(site, "-", stream=True),
        ask(site, "-", "/v1/messages", stream=True),
    ]
    await until(lambda: sum(one.is_stream for one in site.services.open_requests) == 2)
    end_all(site)
    ours, anthropics = await asyncio.gather(*streams)
    last = orjson.loads(ours.text.rstrip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["code"] == "shutting_down"
    assert "event: error\ndata: " in anthropics.text
    await until(lambda: site.doors[0].open_requests == 0)


async def test_a_whole_answer_that_is_left_at_the_end_is_503_with_retry_after(
    make_site: SiteFactory,
) -> None:
    engine = HeldEngine()
    site = await make_site(engine, config=GatewayConfig(admission=ONE))
    running = ask(site, "-", stream=True)
    await until(lambda: engine.bodies)
    left: asyncio.Task[httpx.Response] = ask(site, "-")
    await until(lambda: waiting(site) == 1)
    end_all(site)
    response = await left
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    await running


async def test_another_limit_holds_from_the_next_request_on(make_site: SiteFactory) -> None:
    site = await make_site(config=config("a"))
    assert (await ask(site, "a", n=4)).status_code == 200
    site.services.apply(config("a", limits={"max_n": 2}))
    response = await ask(site, "a", n=4)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")


async def test_other_admission_figures_let_those_in_that_wait(make_site: SiteFactory) -> None:
    engine = HeldEngine()
    site = await make_site(engine, config=config("a"))
    asked = [ask(site, "a", stream=True) for _ in range(3)]
    await until(lambda: waiting(site) == 2)
    site.services.apply(config("a").model_copy(update={"admission": AdmissionConfig()}))
    await until(lambda: waiting(site) == 0)
    engine.let_go.set()
    for one in await asyncio.gather(*asked):
        assert one.text.endswith("data: [DONE]\n\n")
