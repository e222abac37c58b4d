"""A replica dies with many requests that have not begun: each of them is answered by another."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from serving.discovery.directory import Replica
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import SiteFactory

OPEN = 200


class Doomed:
    """A replica that takes requests, answers none, and dies."""

    def __init__(self) -> None:
        self.open: list[asyncio.StreamWriter] = []
        self.is_full = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.open.append(writer)
        if len(self.open) == OPEN:
            self.is_full.set()

    def die(self) -> None:
        for writer in self.open:
            writer.transport.abort()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_two_hundred_requests_of_a_replica_that_dies_are_all_answered(
    make_site: SiteFactory, stream: bool
) -> None:
    site = await make_site(FakeEngine())
    doomed = Doomed()
    server = await asyncio.start_server(doomed.take, "127.0.0.1", 0, backlog=2 * OPEN)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    model = site.models["fake"]
    site.models["fake"] = replace(model, replicas=(Replica("doomed", url, "token"),))
    body: dict[str, Any] = {
        "model": "fake",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": stream,
        "max_tokens": 2,
    }
    limits = httpx.Limits(max_connections=OPEN)
    async with httpx.AsyncClient(base_url=site.url, limits=limits, timeout=60) as client:
        asking = [
            asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(OPEN)
        ]
        await asyncio.wait_for(doomed.is_full.wait(), 60)
        site.models["fake"] = model
        doomed.die()
        server.close()
        answers = await asyncio.gather(*asking)
    assert [answer.status_code for answer in answers] == [200] * OPEN
