"""The door of a replica: who gets in, and when it is empty."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.engine.access import ENDPOINTS, QUEUE_MEMORY_S, GatewayDoor
from serving.http_protocol import EXTENSION, client_of
from serving.listener import Listener
from serving.replica_protocol import QUEUED_HEADER
from serving.replica_protocol import TOKEN_HEADER as TOKEN_NAME

TOKEN_HEADER = TOKEN_NAME.encode()

TOKEN = "right"
CHAT = ("POST", "/v1/chat/completions")


class App:
    """Notes which requests reached it, and holds them until it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.fails = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])
        await self.go_on.wait()
        if self.fails:
            raise RuntimeError("engine")
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def knock(
    door: GatewayDoor,
    method: str = CHAT[0],
    path: str = CHAT[1],
    headers: list[tuple[bytes, bytes]] | None = None,
    kind: str = "http",
    **scope: Any,
) -> int | None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    if headers is None:
        headers = [(TOKEN_HEADER, TOKEN.encode())]
    scope |= {"type": kind, "method": method, "path": path, "headers": headers}
    await door(scope, receive, send)
    return sent[0]["status"] if sent else None


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def door(app: App) -> GatewayDoor:
    return GatewayDoor(app, TOKEN, lambda: False)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(TOKEN_HEADER, b"wrong")],
        [(TOKEN_HEADER, b"")],
        [(TOKEN_HEADER, b"right ")],
        [(TOKEN_HEADER, b"\xff\xfe")],
        [(b"authorization", b"right")],
        [(TOKEN_HEADER, b"wrong"), (TOKEN_HEADER, b"right")],
    ],
)
async def test_without_the_token_nothing_is_reached(
    app: App, door: GatewayDoor, headers: list[tuple[bytes, bytes]]
) -> None:
    assert await knock(door, headers=headers) == 401
    assert await knock(door, path="/no/such", headers=headers) == 401
    assert app.seen == []


@pytest.mark.parametrize(("method", "path"), sorted(ENDPOINTS))
async def test_listed_endpoints_are_reached(
    app: App, door: GatewayDoor, method: str, path: str
) -> None:
    assert await knock(door, method, path) == 200
    assert app.seen == [path]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/tokenizer_info"),
        ("POST", "/invocations"),
        ("POST", "/sleep"),
        ("POST", "/scale_elastic_ep"),
        ("POST", "/collective_rpc"),
        ("GET", "/server_info"),
        ("GET", "/docs"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/metrics"),
    ],
)
async def test_everything_else_is_not_there(
    app: App, door: GatewayDoor, method: str, path: str
) -> None:
    assert await knock(door, method, path) == 404
    assert app.seen == []


async def test_other_protocols_are_ignored(app: App, door: GatewayDoor) -> None:
    assert await knock(door, kind="websocket") is None
    assert await knock(door, kind="lifespan") is None
    assert app.seen == []


async def test_a_dead_engine_is_a_503_so_that_another_replica_is_asked(app: App) -> None:
    assert await knock(GatewayDoor(app, TOKEN, lambda: True)) == 503
    assert app.seen == []


async def test_open_requests_are_counted_and_waited_for(app: App, door: GatewayDoor) -> None:
    assert await door.drained(0.1)
    app.go_on.clear()
    requests = [asyncio.create_task(knock(door)) for _ in range(3)]
    await asyncio.sleep(0)
    assert door.open_requests == 3
    assert not await door.drained(0.01)
    waiting = asyncio.create_task(door.drained(5))
    app.go_on.set()
    assert await waiting
    assert await asyncio.gather(*requests) == [200] * 3
    assert door.open_requests == 0


async def test_a_request_that_fails_or_is_cancelled_is_over(app: App, door: GatewayDoor) -> None:
    app.fails = True
    with pytest.raises(RuntimeError):
        await knock(door)
    app.go_on.clear()
    request = asyncio.create_task(knock(door))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert door.open_requests == 0
    assert await door.drained(0.1)


class Reader:
    """A client connection whose reader reads, or not."""

    is_slow = False


async def test_a_request_whose_reader_does_not_read_waits_for_no_engine(app: App) -> None:
    now = [100.0]
    door = GatewayDoor(app, TOKEN, lambda: False, clock=lambda: now[0])
    assert door.awaiting_since_s() is None
    app.go_on.clear()
    reader = Reader()
    extensions = {EXTENSION: {"connection": reader}}
    requests = [asyncio.create_task(knock(door, extensions=extensions))]
    await asyncio.sleep(0)
    assert door.awaiting_since_s() == 100.0
    reader.is_slow = True
    now[0] = 230.0
    assert door.awaiting_since_s() is None
    reader.is_slow = False
    assert door.awaiting_since_s() == 230.0, "the engine owes it nothing from before"
    requests.append(asyncio.create_task(knock(door)))
    await asyncio.sleep(0)
    reader.is_slow = True
    now[0] = 240.0
    assert door.awaiting_since_s() == 230.0, "the other one waits"
    app.go_on.set()
    await asyncio.gather(*requests)
    assert door.awaiting_since_s() is None


async def test_a_socket_that_is_not_read_makes_its_request_wait_for_nothing() -> None:
    """Over a real connection: more is written than the kernels and the listener buffer."""
    filled, end = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client = client_of(scope)
        still_slow = 0
        while still_slow < 3:
            # The kernel of the other end takes some more, a little later.
            await asyncio.sleep(0.01)
            still_slow = still_slow + 1 if client.is_slow else 0
            if not client.is_slow:
                client.write(b"x" * 65536)
        filled.set()
        await end.wait()
        await send({"type": "http.response.body", "body": b""})

    door = GatewayDoor(app, TOKEN, lambda: False)
    listener = Listener(door, "127.0.0.1")
    await listener.start()
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
        head = f"POST {CHAT[1]} HTTP/1.1\r\nhost: a\r\n{TOKEN_NAME}: {TOKEN}\r\ncontent-length: 0"
        writer.write(head.encode() + b"\r\n\r\n")
        await asyncio.wait_for(filled.wait(), timeout=10)
        assert door.open_requests == 1
        assert door.awaiting_since_s() is None
        writer.close()
        end.set()
        assert await door.drained(5)
    finally:
        await listener.close()


async def test_the_longest_queue_of_the_gateways_is_known_for_a_while() -> None:
    now = [100.0]
    door = GatewayDoor(App(), TOKEN, lambda: False, clock=lambda: now[0])

    async def told(queued: bytes, token: bytes = TOKEN.encode()) -> int:
        await knock(door, headers=[(QUEUED_HEADER.encode(), queued), (TOKEN_HEADER, token)])
        return door.gateway_queue

    assert await told(b"3") == 3
    assert await told(b"7") == 7
    assert await told(b"2") == 7
    assert await told(b"99", token=b"wrong") == 7
    assert await told(b"x") == 7
    now[0] += QUEUE_MEMORY_S + 0.1
    assert door.gateway_queue == 0
    assert await told(b"2") == 2


async def test_a_request_that_a_closing_replica_cuts_can_go_to_another(app: App) -> None:
    app.go_on.clear()
    door = GatewayDoor(app, TOKEN, lambda: False)
    asking = asyncio.create_task(knock(door))
    await asyncio.sleep(0)
    sent: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("status", 0))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    headers = [(TOKEN_HEADER, TOKEN.encode())]
    scope = {"type": "http", "method": CHAT[0], "path": CHAT[1], "headers": headers}
    cut = asyncio.create_task(door(scope, receive, send))
    await asyncio.sleep(0)
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    assert sent == [503, 0]
    app.go_on.set()
    assert await asking == 200
