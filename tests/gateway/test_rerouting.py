"""A gateway that gets new routing while it answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loadtests.processes.free_ports import free_port
from serving.config.rerouting import user_config
from serving.config.routing import RoutingConfig
from serving.gateway.replica import GatewayReplica
from serving.settings import GatewayConfig
from tests.gateway.conftest import SiteFactory

ASK = {"model": "new", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
ROUTING = RoutingConfig.model_validate({"aliases": {"new": "fake"}})


async def test_a_name_answers_as_soon_as_routing_knows_it(make_site: SiteFactory) -> None:
    site = await make_site()
    assert (await site.client.post("/v1/chat/completions", json=ASK)).status_code == 404
    site.services.dispatcher.reroute(ROUTING)
    response = await site.client.post("/v1/chat/completions", json=ASK)
    assert (response.status_code, response.headers["x-comptoir-model"]) == (200, "fake")
    names = [one["id"] for one in (await site.client.get("/v1/models")).json()["data"]]
    assert "new" in names
    assert (await site.client.get("/v1/models/new")).status_code == 200


async def test_an_open_stream_outlives_new_routing(make_site: SiteFactory) -> None:
    site = await make_site()
    site.services.dispatcher.reroute(ROUTING)
    body = ASK | {"stream": True, "max_tokens": 40}
    async with site.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.aiter_lines()
        await anext(lines)
        site.services.dispatcher.reroute(RoutingConfig())
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"


class _Nothing:
    """Stands in for what Ray would give."""

    follows = True
    current = None

    def __init__(self, *args: Any) -> None: ...

    def wake(self, model_id: str) -> None: ...

    def elsewhere(self) -> list[Any]:
        return []

    async def start(self) -> None: ...

    async def full(self, within_s: float) -> bool:
        return True

    async def stop(self) -> None: ...


async def test_the_port_opens_with_the_first_routing_and_bad_routing_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.gateway.replica.RayDirectory", _Nothing)
    port = free_port()
    gateway = GatewayReplica.__new__(GatewayReplica)
    await GatewayReplica.__init__(gateway, GatewayConfig(port=port, lame_duck_s=0))
    dispatcher = gateway._services.dispatcher
    try:
        with pytest.raises(RuntimeError):
            await gateway.check_health()
        await gateway.reconfigure(user_config(ROUTING))
        await gateway.check_health()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        assert dispatcher.routing == ROUTING
        with caplog.at_level("ERROR"):
            await gateway.reconfigure({"routing": {"aliases": {"a": []}}})
        assert "what was in force stays" in caplog.text
        assert dispatcher.routing == ROUTING
        await gateway.check_health()
    finally:
        await GatewayReplica.__del__(gateway)
        del gateway
