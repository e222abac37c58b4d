"""What a client can hold of a gateway: a connection without a key is a stranger's, and unread answers end."""

from __future__ import annotations

import asyncio
import socket

import httpx
import orjson
import pytest

from serving.config.connections import ConnectionsConfig
from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import Site, SiteFactory

KEY = "sk-comptoir-test"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def config(**connections: float) -> GatewayConfig:
    keys = (KeyConfig(name="test", hash=hash_key(KEY)),)
    return GatewayConfig(keys=keys, connections=ConnectionsConfig(**connections))


def with_key(key: str = KEY) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("key", "path", "is_known"),
    [
        (KEY, "/v1/chat/completions", True),
        (KEY, "/v1/models", True),
        ("sk-comptoir-wrong", "/v1/chat/completions", False),
        ("sk-comptoir-wrong", "/v1/models", False),
        (KEY, "/health", False),
    ],
)
async def test_a_connection_is_known_once_a_key_was_accepted_on_it(
    make_site: SiteFactory, key: str, path: str, is_known: bool
) -> None:
    site = await make_site(config=config())
    if path.endswith("completions"):
        await site.client.post(path, json=CHAT, headers=with_key(key))
    else:
        await site.client.get(path, headers=with_key(key))
    (connection,) = site.front.table.connections
    assert connection.is_recognised == is_known


async def test_many_silent_strangers_leave_good_clients_alone(make_site: SiteFactory) -> None:
    site = await make_site(config=config(max_unauthenticated=20))
    writers = []
    for _ in range(60):
        _, writer = await asyncio.open_connection("127.0.0.1", site.front.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
        writers.append(writer)
        if len(writers) % 10 == 0:
            # One whose connection is kept, and one that comes now.
            answer = await site.client.post("/v1/chat/completions", json=CHAT, headers=with_key())
            assert answer.status_code == 200
            async with httpx.AsyncClient(base_url=site.url) as newcomer:
                assert (await newcomer.get("/v1/models", headers=with_key())).status_code == 200
    assert len(site.front.table.connections) <= 22
    for writer in writers:
        writer.close()


def never_reading(site: Site) -> socket.socket:
    """A stream that nobody reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", site.front.port))
    body = orjson.dumps(CHAT | {"max_tokens": 100_000, "stream": True})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client


async def test_streams_that_nobody_reads_end_and_free_their_engine(make_site: SiteFactory) -> None:
    engine = FakeEngine()
    site = await make_site(engine, config=config(write_stall_s=0.2))
    clients = [never_reading(site) for _ in range(5)]
    async with asyncio.timeout(10):
        while engine.running < 5 and engine.aborted == 0:  # noqa: ASYNC110 - other tasks change it
            await asyncio.sleep(0.01)
        while engine.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert engine.aborted == 5
    assert [each.open for each in site.services.admission.snapshots()] == [0]
    for client in clients:
        client.close()


@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_another_encoding_is_refused_with_what_is_understood(
    make_site: SiteFactory, encoding: str
) -> None:
    site = await make_site(config=config())
    headers = with_key() | {"content-encoding": encoding, "content-type": "application/json"}
    answer = await site.client.post("/v1/chat/completions", content=b"x", headers=headers)
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip"
    assert answer.json()["error"]["code"] == "unsupported_content_encoding"


async def test_one_keys_slow_bodies_lock_nobody_out(make_site: SiteFactory) -> None:
    keys = tuple(KeyConfig(name=name, hash=hash_key(name)) for name in ("hog", "good"))
    limits = ConnectionsConfig(max_connections=12)
    site = await make_site(config=GatewayConfig(keys=keys, connections=limits))
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer hog\r\n"
        b"content-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
    )
    hogs = [await asyncio.open_connection("127.0.0.1", site.front.port) for _ in range(12)]
    for _, writer in hogs:
        writer.write(head)
        await asyncio.sleep(0.01)
    for _ in range(5):
        async with httpx.AsyncClient(base_url=site.url) as client:
            answer = await client.get("/v1/models", headers={"x-api-key": "good"})
        assert answer.status_code == 200
    for _, writer in hogs:
        writer.close()
