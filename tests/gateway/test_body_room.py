"""One key's bodies leave room for those of others, and what is over gives back what it took."""

from __future__ import annotations

import asyncio

import httpx
import orjson
import pytest

from serving.errors import RateLimitedError
from serving.gateway.body_room import BodyRoom, BodyShare
from serving.settings import GatewayConfig, KeyConfig, RequestLimits, hash_key
from tests.gateway.conftest import Site, SiteFactory

MIB = 1024 * 1024


def fill(room: BodyRoom, who: str, limit: int, size: int = 1) -> list[BodyShare]:
    """As much as it gets."""
    shares = []
    while True:
        share = BodyShare(room)
        try:
            share.take(who, size, limit)
        except RateLimitedError:
            return shares
        shares.append(share)


def test_there_is_always_room_for_one_more_key() -> None:
    room = BodyRoom()
    got = [len(fill(room, who, 1000)) for who in "abcd"]
    assert got == [500, 250, 125, 62]
    with pytest.raises(RateLimitedError, match="most of it yours"):
        room.take("a", 1, 1000)


def test_who_need_not_share_gets_all_and_what_is_over_is_given_back() -> None:
    room = BodyRoom()
    shares = fill(room, "", 1000, 7)
    assert len(shares) == 142
    for share in shares:
        share.give_back()
        share.give_back()
    assert (room._total, dict(room._held)) == (0, {})


@pytest.fixture
async def site(make_site: SiteFactory) -> Site:
    keys = tuple(KeyConfig(name=name, hash=hash_key(name)) for name in ("hog", "good"))
    limits = RequestLimits(max_held_bytes=64 * MIB)
    return await make_site(config=GatewayConfig(keys=keys, limits=limits))


async def ask(site: Site, key: str, text: str = "hello") -> int:
    body = orjson.dumps({"model": "fake", "messages": [{"role": "user", "content": text}]})
    headers = {"content-type": "application/json", "x-api-key": key}
    async with httpx.AsyncClient(base_url=site.url, timeout=10) as client:
        answer = await client.post("/v1/chat/completions", content=body, headers=headers)
    return answer.status_code


async def test_unfinished_bodies_of_one_key_lock_nobody_out(site: Site) -> None:
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer hog\r\n"
        b"content-type: application/json\r\ncontent-length: 2000000\r\n\r\n"
    )
    streams, refused = [], 0
    for _ in range(24):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.front.port)
        streams.append(writer)
        writer.write(head + b" " * 1_900_000)
        await writer.drain()
        try:
            answer = await asyncio.wait_for(reader.read(12), 0.2)
        except TimeoutError:
            continue
        refused += answer == b"HTTP/1.1 429"
    assert 0 < refused < 24
    assert await ask(site, "good", "x" * 1_000_000) == 200
    assert await ask(site, "hog", "x" * 1_900_000) == 429
    for writer in streams:
        writer.close()
    for _ in range(500):
        if not site.services.open_requests:
            break
        await asyncio.sleep(0.01)
    assert await ask(site, "hog", "x" * 1_900_000) == 200
