"""A gateway with fake engines behind it: real sockets, no Ray, no vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from serving.discovery.directory import Directory, Model, Replica
from serving.engine.access import GatewayDoor
from serving.gateway.asgi import build_asgi
from serving.gateway.services import Services
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig
from tests.fake_engine import FakeEngine

TOKEN = "door-token"


@dataclass
class Site:
    """One gateway and its engines."""

    client: httpx.AsyncClient
    services: Services
    engines: list[FakeEngine]
    doors: list[GatewayDoor]
    url: str
    front: Listener
    models: dict[str, Model] = field(default_factory=dict)


SiteFactory = Callable[..., Awaitable[Site]]


@pytest.fixture
async def make_site() -> AsyncIterator[SiteFactory]:
    listeners: list[Listener] = []
    async with AsyncExitStack() as stack:

        async def make(
            *engines: FakeEngine,
            task: str = "chat",
            config: GatewayConfig | None = None,
            dead: bool = False,
            gone: int = 0,
            card: Mapping[str, Any] | None = None,
            prefill: Sequence[FakeEngine] = (),
        ) -> Site:
            chosen = list(engines) or [FakeEngine()]
            replicas, doors = [], []

            async def open_door(name: str, engine: FakeEngine) -> Replica:
                door = GatewayDoor(engine.asgi(), TOKEN, lambda: dead)
                listener = Listener(door, "127.0.0.1")
                await listener.start()
                listeners.append(listener)
                doors.append(door)
                return Replica(name, f"http://127.0.0.1:{listener.port}", TOKEN)

            for number, engine in enumerate(chosen):
                replicas.append(await open_door(f"replica-{number}", engine))
            computing = [
                await open_door(f"prefill-{number}", engine)
                for number, engine in enumerate(prefill)
            ]
            for number in range(gone):
                # Nobody listens on port 9 of the loopback interface.
                replicas.insert(0, Replica(f"gone-{number}", "http://127.0.0.1:9", TOKEN))
            facts = {"task": task, "vendor": "test", "aliases": ["vendor/alias"]} | dict(card or {})
            models = {
                "fake": Model(
                    "fake", ModelCard.parse(facts), tuple(replicas), prefill=tuple(computing)
                ),
                # Nobody waits for one that does not start.
                "sleeping": Model(
                    "sleeping", ModelCard(task="chat"), (), "DEPLOYING", fails_to_start=True
                ),
            }
            services = Services.build(config or GatewayConfig(), lambda: Directory(models.values()))
            stack.push_async_callback(services.stop)
            connections = services.config.connections
            front = Listener(build_asgi(services), "127.0.0.1", connections=connections)
            await front.start()
            listeners.append(front)
            base = f"http://127.0.0.1:{front.port}"
            client = httpx.AsyncClient(base_url=base, timeout=10)
            stack.push_async_callback(client.aclose)
            return Site(client, services, chosen, doors, base, front, models)

        yield make
        # Together: each takes two tenths of a second.
        await asyncio.gather(*(listener.close() for listener in listeners))
