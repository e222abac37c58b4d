"""What a request cost is said with its answer; what could not be said is collected at the door."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.engine.access import ENDPOINTS, GatewayDoor
from serving.engine.metered_app import MeteredApp
from serving.engine.metering import Meter
from serving.listener import Listener
from serving.replica_protocol import (
    BILLS_PATH,
    PAYER_HEADER,
    TOKEN_HEADER,
    USAGE_HEADER,
    Bill,
    Collection,
    Usage,
    parse_bills,
    take_usage,
)

TOKEN = "right"
INFERENCE = sorted(path for method, path in ENDPOINTS if method == "POST")


@dataclass
class Engine:
    """An app that counts into the meter as an engine would: each sequence 10 prompt tokens and 3 more."""

    meter: Meter
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0
    is_dead: bool = False

    def asgi(self) -> Any:
        return Starlette(routes=[Route(path, self.answer, methods=["POST"]) for path in INFERENCE])

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        if body.get("status"):
            return JSONResponse({}, body["status"])
        if body.get("stream"):
            return StreamingResponse(self.stream(body), media_type="text/event-stream")
        # As vLLM does for several inputs: in tasks of their own.
        await asyncio.gather(*(self.work(body) for _ in range(body.get("n", 1))))
        return JSONResponse({"done": True})

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await self.work(body)
        yield b"data: 2\n\n"

    async def work(self, body: dict[str, Any]) -> None:
        self.count += 1
        engine_id = f"e{self.count}"
        self.meter.began(engine_id)
        self.began.set()
        try:
            self.meter.read(engine_id, 10, 4, is_first=True)
            if body.get("wait"):
                await self.go_on.wait()
            self.meter.wrote(engine_id, 3)
        finally:
            self.meter.ended(engine_id)


@dataclass
class Site:
    engine: Engine
    meter: Meter
    door: GatewayDoor
    url: str
    session: aiohttp.ClientSession

    def post(self, path: str, body: Any, **headers: str) -> Any:
        named = {TOKEN_HEADER: TOKEN, PAYER_HEADER: "g key", "x-request-id": "r"}
        return self.session.post(self.url + path, json=body, headers=named | headers)

    async def collect(self, *acknowledged: str) -> list[Bill]:
        call = Collection("g", acknowledged).encode()
        headers = {TOKEN_HEADER: TOKEN}
        async with self.session.post(self.url + BILLS_PATH, data=call, headers=headers) as response:
            assert response.status == 200
            return parse_bills(await response.read())

    async def bill(self) -> Bill:
        """The next one, within a second."""
        for _ in range(100):
            if bills := await self.collect():
                return bills[0]
            await asyncio.sleep(0.01)
        raise AssertionError("no bill")


@asynccontextmanager
async def site_with(reasoning: Any = lambda state: 0) -> AsyncIterator[Site]:
    meter = Meter("m")
    engine = Engine(meter)
    app = MeteredApp(engine.asgi(), meter, reasoning)
    door = GatewayDoor(app, TOKEN, lambda: engine.is_dead)
    listener = Listener(door, "127.0.0.1")
    await listener.start()
    async with aiohttp.ClientSession() as session:
        yield Site(engine, meter, door, f"http://127.0.0.1:{listener.port}", session)
    await listener.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with site_with() as found:
        yield found


@pytest.mark.parametrize("path", INFERENCE)
async def test_a_whole_answer_of_every_endpoint_says_what_it_cost(site: Site, path: str) -> None:
    async with site.post(path, {"n": 2}) as response:
        usage = Usage.parse(response.headers[USAGE_HEADER])
    assert usage is not None
    assert usage == Usage(20, 8, 6, 0, 20, 2, usage.bill)
    assert await site.collect(usage.bill) == []
    assert site.meter.stats()["kept_bills"] == 0


@pytest.mark.parametrize("path", INFERENCE)
async def test_a_stream_of_every_endpoint_says_it_at_its_end(site: Site, path: str) -> None:
    async with site.post(path, {"stream": True}) as response:
        assert USAGE_HEADER not in response.headers
        events, usage = take_usage(await response.read())
    assert events == b"data: 1\n\ndata: 2\n\n"
    assert usage is not None
    assert usage == Usage(10, 4, 3, 0, 10, 1, usage.bill)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_aborted_request_cost_can_be_collected(site: Site, stream: bool) -> None:
    body = orjson.dumps({"stream": stream, "wait": True}).decode()
    _, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    writer.write(
        f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n"
        f"{TOKEN_HEADER}: {TOKEN}\r\n{PAYER_HEADER}: g key\r\nx-request-id: r\r\n\r\n{body}".encode()
    )
    await site.engine.began.wait()
    # A reset: an ordinary end of input may be that of a client that waits for its answer.
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await asyncio.sleep(0.05)
    site.engine.go_on.set()
    bill = await site.bill()
    assert (bill.outcome, bill.request_id, bill.key) == ("aborted", "r", "key")
    assert (bill.path, bill.model) == ("/v1/completions", "m")
    assert bill.usage.prompt_tokens == 10


async def test_a_refused_request_costs_nothing(site: Site) -> None:
    async with site.post("/v1/score", {"status": 400}) as response:
        assert USAGE_HEADER not in response.headers
    assert await site.collect() == []


async def test_a_dead_engine_does_not_keep_its_replicas_bills(site: Site) -> None:
    account = site.meter.open("r", "g key", "/v1/x")
    account.sequences = 1
    site.meter.over(account, "failed")
    site.engine.is_dead = True
    async with site.post("/v1/score", {}) as response:
        assert response.status == 503
    assert len(await site.collect()) == 1


async def test_bills_are_for_gateways_only(site: Site) -> None:
    async with site.session.post(site.url + BILLS_PATH, data=b"{}") as response:
        assert response.status == 401
    async with site.session.get(site.url + BILLS_PATH, headers={TOKEN_HEADER: TOKEN}) as response:
        assert response.status == 404
    async with site.post(BILLS_PATH, {"no": "collection"}) as response:
        assert response.status == 400
    assert site.door.arrived_requests == 0


async def test_reasoning_is_said_where_the_engine_tells_it_apart() -> None:
    seen: list[Any] = []
    async with (
        site_with(lambda state: seen.append(state) or 2) as site,
        site.post("/v1/chat/completions", {}) as response,
    ):
        usage = Usage.parse(response.headers[USAGE_HEADER])
    assert usage is not None
    assert usage.reasoning_tokens == 2
    assert isinstance(seen[0], dict)


async def test_a_closing_door_cuts_what_is_open_and_still_hands_out_bills(site: Site) -> None:
    body = {"stream": True, "wait": True}
    async with site.post("/v1/completions", body) as response:
        await site.engine.began.wait()
        await site.door.cut()
        assert site.door.open_requests == 0
        async with site.post("/v1/completions", {}) as late:
            assert late.status == 503
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert (await site.bill()).outcome == "aborted"
