"""A gateway leaves behind HAProxy, configured as in docs/bare-metal.md: nothing fails, nothing is cut."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.config.rerouting import user_config
from serving.config.routing import RoutingConfig
from serving.discovery.directory import Directory, Model, Replica
from serving.engine.access import GatewayDoor
from serving.gateway import replica
from serving.gateway.replica import GatewayReplica
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig
from tests.fake_engine import FakeEngine
from tests.gateway.test_replica import Models
from tests.stack.conftest import free_port

pytestmark = pytest.mark.services

DOCUMENT = Path(__file__).parents[2] / "docs" / "bare-metal.md"
HEAD = """
defaults
    mode http
    timeout client 1h
frontend front
    bind 127.0.0.1:{port}
    default_backend comptoir
"""
# Streams of four seconds; HAProxy takes the gateway out after one, and it closes its port after three.
LONG, SHORT, EVERY_S, LAME_DUCK_S = 80, 2, 0.05, 3.0


def config(port: int, gateways: list[int]) -> str:
    """What the document says, with these gateways."""
    (text,) = re.findall(
        r"^(backend comptoir\n.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    lines = [line for line in text.splitlines() if not line.strip().startswith("server ")]
    # The document's figure is for nodes that come and go.
    lines = [line.replace("rise 20", "rise 2") for line in lines]
    lines += [f"    server s{one} 127.0.0.1:{one} check" for one in gateways]
    return HEAD.format(port=port) + "\n".join(lines) + "\n"


async def a_gateway() -> GatewayReplica:
    gateway = GatewayReplica.__new__(GatewayReplica)
    settings = GatewayConfig(port=free_port(), lame_duck_s=LAME_DUCK_S, drain_timeout_s=20)
    await GatewayReplica.__init__(gateway, settings)
    await gateway.reconfigure(user_config(RoutingConfig()))
    return gateway


class Clients:
    """What they asked, and what came of it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._stopped = False
        self.answered = 0
        self.failed: list[str] = []

    async def ask(self, tokens: int) -> None:
        messages = [{"role": "user", "content": "hi"}]
        body = {"model": "m", "messages": messages, "stream": True, "max_tokens": tokens}
        try:
            response = await self._client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.failed.append(f"{tokens}: {error!r}")
            return
        if response.status_code == 200 and response.text.endswith("data: [DONE]\n\n"):
            self.answered += 1
        else:
            self.failed.append(f"{tokens}: {response.status_code} {response.text[-200:]}")

    async def go_on(self) -> None:
        while not self._stopped:
            await self.ask(SHORT)

    def stop(self) -> None:
        self._stopped = True


@pytest.mark.timeout(120)
async def test_a_gateway_that_leaves_fails_no_request_and_cuts_no_stream(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs haproxy: apt-get install haproxy")
    engine = FakeEngine(first_token_s=0.0, interval_s=EVERY_S)
    door = Listener(GatewayDoor(engine.asgi(), "t", lambda: False), "127.0.0.1")
    await door.start()
    here = Replica("r", f"http://127.0.0.1:{door.port}", "t")
    monkeypatch.setattr(Models, "current", Directory([Model("m", ModelCard(task="chat"), (here,))]))
    monkeypatch.setattr(replica, "RayDirectory", Models)
    leaves, stays = await a_gateway(), await a_gateway()
    path, port = tmp_path / "haproxy.cfg", free_port()
    path.write_text(config(port, [leaves._config.port, stays._config.port]))
    # -db: in the foreground.
    process = await asyncio.create_subprocess_exec(
        program, "-db", "-f", str(path), stderr=subprocess.DEVNULL
    )
    try:
        await asyncio.sleep(2.5)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            await _leave(Clients(client), leaves)
    finally:
        process.terminate()
        await process.wait()
        await GatewayReplica.__del__(stays)
        await door.close()


async def _leave(clients: Clients, gateway: GatewayReplica) -> None:
    short = [asyncio.create_task(clients.go_on()) for _ in range(3)]
    # HAProxy has taken it in.
    await _streams_through(gateway)
    long = [asyncio.create_task(clients.ask(LONG)) for _ in range(6)]
    await asyncio.sleep(0.5)
    await _streams_through(gateway)
    await GatewayReplica.__del__(gateway)
    await asyncio.gather(*long)
    clients.stop()
    await asyncio.gather(*short)
    assert clients.failed == []
    assert clients.answered > 20


async def _streams_through(gateway: GatewayReplica) -> None:
    mine: Any = gateway._services.open_requests
    async with asyncio.timeout(30):
        while not any(one.is_stream for one in mine):  # noqa: ASYNC110 - others open them
            await asyncio.sleep(0.01)
