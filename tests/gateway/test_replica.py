"""The gateway as Serve runs it: it listens when it knows the models, and leaves without a gap."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from loadtests.processes.free_ports import free_port
from serving.app import SHUTDOWN_MARGIN_S, gateway_options
from serving.config.rerouting import user_config
from serving.config.routing import RoutingConfig
from serving.discovery.directory import Directory, Model, Replica
from serving.engine.access import GatewayDoor
from serving.gateway import replica
from serving.gateway.neighbours import Neighbours
from serving.gateway.replica import GatewayReplica
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig
from tests.fake_engine import FakeEngine


class Gate:
    """Instead of the time in which a gateway tells everybody to go elsewhere: as long as a test wants."""

    def __init__(self) -> None:
        self.is_closed = asyncio.Event()
        self.is_open = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.is_closed.set()
        await self.is_open.wait()


class Models:
    """Stands in for what Ray would give."""

    follows = True
    current = Directory(
        [Model("m", ModelCard(task="chat"), (Replica("r", "http://127.0.0.1:9", "t"),))]
    )
    is_full = True

    def __init__(self, *args: Any) -> None: ...

    def wake(self, model_id: str) -> None: ...

    def elsewhere(self) -> list[Any]:
        return []

    async def start(self) -> None: ...

    async def full(self, within_s: float) -> bool:
        return self.is_full

    async def stop(self) -> None: ...


async def begun(config: GatewayConfig) -> GatewayReplica:
    gateway = GatewayReplica.__new__(GatewayReplica)
    await GatewayReplica.__init__(gateway, config)
    await gateway.reconfigure(user_config(RoutingConfig()))
    return gateway


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    found = Gate()
    monkeypatch.setattr(replica, "sleep", found)
    return found


@pytest.fixture
async def gateway(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> GatewayReplica:
    monkeypatch.setattr(replica, "RayDirectory", Models)
    return await begun(GatewayConfig(port=free_port(), drain_timeout_s=0))


async def get(gateway: GatewayReplica, path: str) -> httpx.Response:
    # A connection for each, as a balancer's probe.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - plain HTTP
        return await client.get(f"http://127.0.0.1:{gateway._config.port}{path}")


async def test_one_that_leaves_says_so_first_and_answers_meanwhile(
    gateway: GatewayReplica, gate: Gate
) -> None:
    assert (await get(gateway, "/ready")).status_code == 200
    leaving = asyncio.create_task(GatewayReplica.__del__(gateway))
    await gate.is_closed.wait()
    response = await get(gateway, "/ready")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    assert (await get(gateway, "/health")).status_code == 200
    assert (await get(gateway, "/v1/models")).json()["data"][0]["id"] == "m"
    gate.is_open.set()
    await leaving
    with pytest.raises(httpx.ConnectError):
        await get(gateway, "/health")


async def test_one_whose_readiness_nobody_looks_at_leaves_at_once(
    gateway: GatewayReplica, gate: Gate
) -> None:
    assert (await get(gateway, "/health")).status_code == 200
    await GatewayReplica.__del__(gateway)
    assert not gate.is_closed.is_set()


async def test_balancers_hear_nothing_where_another_gateway_takes_the_port(
    gateway: GatewayReplica, gate: Gate
) -> None:
    other = Neighbours(gateway._config.host, gateway._config.port)
    other.join()
    try:
        leaving = asyncio.create_task(GatewayReplica.__del__(gateway))
        await gate.is_closed.wait()
        assert (await get(gateway, "/ready")).status_code == 200
        gate.is_open.set()
        await leaving
    finally:
        other.leave()
    with pytest.raises(httpx.ConnectError):
        await get(gateway, "/health")


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    """One that takes its time, as the replica of the model `m`."""
    found = FakeEngine(first_token_s=0.0, interval_s=0.05)
    listener = Listener(GatewayDoor(found.asgi(), "t", lambda: False), "127.0.0.1")
    await listener.start()
    here = Replica("r", f"http://127.0.0.1:{listener.port}", "t")
    monkeypatch.setattr(Models, "current", Directory([Model("m", ModelCard(task="chat"), (here,))]))
    yield found
    await listener.close()


async def until(is_so: Callable[[], Any]) -> None:
    for _ in range(400):
        if is_so():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not come to that")


async def test_what_is_left_at_the_end_is_told_so_in_its_own_dialect(
    gateway: GatewayReplica, gate: Gate, engine: FakeEngine
) -> None:
    url = f"http://127.0.0.1:{gateway._config.port}"
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        streams = [
            asyncio.create_task(client.post(path, json=body | {"stream": True}))
            for path in ("/v1/chat/completions", "/v1/messages")
        ]
        whole = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        open_requests = gateway._services.open_requests
        await until(lambda: sum(one.is_stream for one in open_requests) == 2)
        await until(lambda: len(engine.bodies) == 3)
        gate.is_open.set()
        await GatewayReplica.__del__(gateway)
        ours, anthropics = [response.text for response in await asyncio.gather(*streams)]
        answer = await whole
    assert '"code":"shutting_down"' in ours.rstrip().splitlines()[-1]
    assert anthropics.rstrip().splitlines()[-2] == "event: error"
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_answer_of_one_that_leaves_ends_its_connection(
    gateway: GatewayReplica, gate: Gate
) -> None:
    url = f"http://127.0.0.1:{gateway._config.port}"
    async with httpx.AsyncClient(base_url=url) as client:
        assert "connection" not in (await client.get("/ready")).headers
        leaving = asyncio.create_task(GatewayReplica.__del__(gateway))
        await gate.is_closed.wait()
        assert (await client.get("/health")).headers["connection"] == "close"
        gate.is_open.set()
        await leaving


async def test_a_new_gateway_and_an_old_one_answer_at_one_port(
    gateway: GatewayReplica, gate: Gate
) -> None:
    gate.is_open.set()
    new = await begun(gateway._config)
    await GatewayReplica.__del__(gateway)
    for _ in range(5):
        assert (await get(new, "/ready")).status_code == 200
    await GatewayReplica.__del__(new)


async def test_models_that_stay_unknown_hold_a_gateway_up_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica, "RayDirectory", type("Unsure", (Models,), {"is_full": False}))
    found = await begun(GatewayConfig(port=free_port(), lame_duck_s=0, drain_timeout_s=0))
    assert "without knowing all replicas" in caplog.text
    assert (await get(found, "/health")).status_code == 200
    await GatewayReplica.__del__(found)


def test_a_changed_gateway_starts_before_the_old_one_leaves_and_serve_waits_for_it() -> None:
    config = GatewayConfig(lame_duck_s=7, drain_timeout_s=11)
    options = gateway_options(config)
    assert options["max_surge_percent"] == 100
    assert options["graceful_shutdown_timeout_s"] == 18 + SHUTDOWN_MARGIN_S
    assert gateway_options(GatewayConfig(surge_percent=0))["max_surge_percent"] == 0


async def test_what_is_there_at_the_start_is_no_work_for_the_collector(
    gateway: GatewayReplica, gate: Gate
) -> None:
    assert gc.get_freeze_count() > 10_000
    gate.is_open.set()
    await GatewayReplica.__del__(gateway)
