"""Applications over real sockets: Starlette's ways to answer, and clients that leave in every way."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.config.connections import ConnectionsConfig
from serving.http_protocol import client_of
from serving.listener import Listener
from tests.http.wire import get, post

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    """asyncio's own loop, and the one that gateways and replicas run on."""
    return request.param()


@contextlib.asynccontextmanager
async def listening(app: Any, **limits: Any) -> AsyncIterator[Listener]:
    listener = Listener(app, "127.0.0.1", connections=ConnectionsConfig(linger_s=0.1, **limits))
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()


def connect(listener: Listener) -> Any:
    return asyncio.open_connection("127.0.0.1", listener.port)


async def soon(condition: Any, within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it asks others than this task
            await asyncio.sleep(0.01)


class Waiting:
    """Answers when it is told to; knows whether its client is lost."""

    def __init__(self, *, begins: bool = False) -> None:
        self._begins = begins
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()
        self.lost = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = client_of(scope)
        client.on_lost = self.lost.set
        if self._begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            client.write(b"first")
        self.begun.set()
        await self.go_on.wait()
        if not self._begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"last"})


# ---- Starlette -------------------------------------------------------------------------------------------


def starlette(*middleware: Middleware) -> Starlette:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d," % number
            await asyncio.sleep(0)

    async def stream(request: Request) -> Response:
        return StreamingResponse(numbers(), media_type="text/plain")

    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/octet-stream")

    async def about(request: Request) -> Response:
        request.state.seen = True
        return JSONResponse(
            {"client": request.client, "url": str(request.url), "method": request.method}
        )

    routes = [
        Route("/stream", stream),
        Route("/echo", echo, methods=["POST"]),
        Route("/about", about),
    ]
    return Starlette(routes=routes, middleware=list(middleware))


async def pass_on(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


@pytest.mark.parametrize("middleware", [[], [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]])
async def test_starlettes_answers(middleware: list[Middleware]) -> None:
    async with listening(starlette(*middleware)) as listener, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{listener.port}"
        for _ in range(2):
            text = (await client.get(f"{url}/stream")).text
            assert text == "".join(f"{number}," for number in range(100))
            assert (
                await client.post(f"{url}/echo", content=b"x" * 500_000)
            ).content == b"x" * 500_000
            head = await client.head(f"{url}/about")
            assert (head.status_code, head.content) == (200, b"")
            told = (await client.get(f"{url}/about?a=b")).json()
        assert told["client"][0] == "127.0.0.1"
        assert told["url"] == f"{url}/about?a=b"
        assert len(listener.table.connections) == 1


async def test_a_streaming_response_ends_when_its_client_has_gone() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(endless())(scope, receive, send)

    async with listening(app) as listener:
        reader, writer = await connect(listener)
        writer.write(get())
        await reader.readline()
        writer.close()
        await asyncio.wait_for(ended.wait(), 3)


async def test_two_that_wait_for_the_client_are_both_told() -> None:
    told: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        told.extend(await asyncio.gather(receive(), receive()))

    async with listening(app) as listener:
        _, writer = await connect(listener)
        writer.write(get())
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await soon(lambda: len(told) == 2)
    assert told == [{"type": "http.disconnect"}] * 2


async def test_a_request_that_was_sent_ahead_has_a_context_of_its_own() -> None:
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(whose.get())
        whose.set(scope["path"])
        await Response(b"ok")(scope, receive, send)

    async with listening(app) as listener:
        _, writer = await connect(listener)
        writer.write(get("/1") + get("/2") + get("/3"))
        await soon(lambda: len(seen) == 3)
        writer.close()
    assert seen == ["nobody's"] * 3


# ---- applications that go wrong --------------------------------------------------------------------------


async def test_an_error_before_the_answer_is_a_500_without_its_text() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("the client's secret")

    async with listening(app) as listener, httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{listener.port}/")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100")]])
async def test_an_answer_that_breaks_off_does_not_look_whole(
    headers: list[tuple[bytes, bytes]],
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await asyncio.sleep(0.01)
        raise ValueError

    async with listening(app) as listener, httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{listener.port}/")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_what_was_sent_of_a_broken_answer_arrives_before_its_end(version: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client_of(scope).write(b"y" * 50_000)
        raise ValueError

    async with listening(app) as listener:
        reader, writer = await connect(listener)
        writer.write(get(version=version))
        if version == "1.0":
            # Nothing else tells this client that it has not got all.
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 3)
        else:
            answer = await asyncio.wait_for(reader.read(), 3)
            assert answer.count(b"y") == 50_000
            assert not answer.endswith(b"0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\nset-cookie: b"), (b"x\r\ny", b"a"), (b"x", b"\0")]
)
async def test_a_header_cannot_hold_another_one(header: tuple[bytes, bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [header]})
        await send({"type": "http.response.body", "body": b""})

    async with listening(app) as listener, httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{listener.port}/")
    assert response.status_code == 500
    assert "set-cookie" not in response.headers


# ---- clients that leave, or seem to ----------------------------------------------------------------------


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_client_that_leaves_is_noticed_within_a_second(way: str, begins: bool) -> None:
    app = Waiting(begins=begins)
    async with listening(app) as listener:
        reader, writer = await connect(listener)
        writer.write(post(b"body"))
        await app.begun.wait()
        if begins:
            await reader.readuntil(b"first\r\n")
        if way == "reset":
            linger = b"\1\0\0\0\0\0\0\0"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        await asyncio.wait_for(app.lost.wait(), 1)
        app.go_on.set()


async def test_a_client_that_leaves_after_it_sent_ahead_is_noticed_too() -> None:
    app = Waiting()
    async with listening(app) as listener:
        _, writer = await connect(listener)
        # More than is read ahead, and no more than the kernel takes: for the rest, the client would stay.
        writer.write(get() + b"x" * 100_000)
        await app.begun.wait()
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.wait_for(app.lost.wait(), 1.5)
        app.go_on.set()


@pytest.mark.parametrize("begins", [False, True])
async def test_a_client_that_half_closes_gets_its_answer(begins: bool) -> None:
    app = Waiting(begins=begins)
    async with listening(app) as listener:
        reader, writer = await connect(listener)
        writer.write(post(b"body"))
        writer.write_eof()
        await app.begun.wait()
        await asyncio.sleep(0.1)
        app.go_on.set()
        answer = await asyncio.wait_for(reader.read(), 3)
        writer.close()
    assert not app.lost.is_set()
    assert answer.endswith(b"last\r\n0\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 1


async def test_an_answer_that_came_before_the_body_reaches_its_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse({"error": "no key"}, 401)(scope, receive, send)

    async with listening(app) as listener:
        reader, writer = await connect(listener)
        raw = post(b"x" * 2_000_000)
        writer.write(raw[:1000])
        await asyncio.sleep(0.05)
        writer.write(raw[1000:])
        answer = await asyncio.wait_for(reader.read(), 3)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b'{"error":"no key"}')


async def test_a_client_that_never_reads_loses_its_stream() -> None:
    lost = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        client = client_of(scope)
        client.on_lost = lost.set
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not client.is_lost:
            while not client.is_slow:
                client.write(b"x" * 65536)
            await asyncio.sleep(0.01)

    async with listening(app, write_stall_s=0.15) as listener:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
        writer.write(get())
        await asyncio.wait_for(lost.wait(), 5)
        await soon(lambda: not listener.table.connections)
        writer.close()
