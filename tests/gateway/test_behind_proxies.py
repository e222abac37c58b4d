"""Behind HAProxy and nginx, which send everybody's requests over shared connections: no answer is another's.

`PROXIED_REQUESTS=10000` makes it as many through each proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from serving.settings import GatewayConfig, KeyConfig, hash_key
from tests.fake_engine import FakeEngine
from tests.gateway.conftest import SiteFactory

pytestmark = pytest.mark.services

REQUESTS = int(os.environ.get("PROXIED_REQUESTS", "400"))
CLIENTS = 16
TENANTS = {"anna": ("fake",), "bert": ("fake", "sleeping")}
KEYS = {name: f"sk-comptoir-{name}" for name in TENANTS}

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    http-reuse always
    server gateway 127.0.0.1:{gateway}
"""
NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream gateway {{ server 127.0.0.1:{gateway}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://gateway;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_buffering off;
        }}
    }}
}}
"""


class Echo(FakeEngine):
    """Its answers say which request they answer."""

    def _event(self, body: dict[str, Any], delta: dict[str, str], finish: str | None) -> bytes:
        return super()._event(body, {"content": body["messages"][0]["content"]}, finish)

    def _completion(self, body: dict[str, Any], tokens: int) -> dict[str, Any]:
        whole = super()._completion(body, tokens)
        whole["choices"][0]["message"]["content"] = body["messages"][0]["content"]
        return whole


@contextlib.contextmanager
def proxy(name: str, gateway: int, folder: Path) -> Iterator[int]:
    """Start one; its port."""
    program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        pytest.skip(f"needs {name}: apt-get install {name}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = folder / "config"
    text = HAPROXY if name == "haproxy" else NGINX
    config.write_text(text.format(port=port, gateway=gateway, folder=folder))
    options = ["-f", str(config)] if name == "haproxy" else ["-c", str(config), "-p", str(folder)]
    with subprocess.Popen([program, *options], stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


@dataclass
class Answer:
    status: int
    body: bytes
    closes: bool


@dataclass
class Client:
    """One tenant's connection, used for request after request."""

    port: int
    tenant: str
    chance: random.Random
    done: dict[str, int] = field(default_factory=dict)
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, numbers: Iterator[int]) -> None:
        """Send a request of some kind for each number."""
        kinds = [name for name in dir(self) if name.startswith("send_")]
        for number in numbers:
            kind = self.chance.choice(kinds)
            await asyncio.wait_for(getattr(self, kind)(f"{self.tenant}-{number}"), 20)
            self.done[kind] = self.done.get(kind, 0) + 1
        self.leave()

    # ---- kinds of request ----------------------------------------------------------------------------

    async def send_chat(self, mark: str) -> None:
        self.check_chat(mark, await self.exchange(self.chat(mark)))

    async def send_chunked(self, mark: str) -> None:
        head, _, body = self.chat(mark).partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
        framed = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for piece in (body[at : at + 20] for at in range(0, len(body), 20))
        )
        raw = (
            b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", b""]) + framed + b"0\r\n\r\n"
        )
        self.check_chat(mark, await self.exchange(raw))

    async def send_upgrade(self, mark: str) -> None:
        raw = self.chat(
            mark, "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMA"
        )
        self.check_chat(mark, await self.exchange(raw))

    async def send_smuggled(self, mark: str) -> None:
        inner = self.request("GET", "/v1/models", tenant=self.other)
        headers = ("connection: upgrade", "upgrade: websocket", f"content-length: {len(inner)}")
        head = self.request("POST", "/health", *headers)
        answer = await self.exchange(head, inner)
        assert answer.status == 405, (mark, answer)

    async def send_stream(self, mark: str) -> None:
        answer = await self.exchange(self.chat(mark, stream=True))
        events = [event[6:] for event in answer.body.split(b"\n\n") if event.startswith(b"data: ")]
        assert events[-1:] == [b"[DONE]"], (mark, answer)
        said = {orjson.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]}
        assert said == {mark}

    async def send_and_leave(self, mark: str) -> None:
        reader, writer = await self.connect()
        writer.write(self.chat(mark, stream=True))
        if self.chance.random() < 0.7:
            assert b"200" in await reader.readline()
        self.leave()

    async def send_expect(self, mark: str) -> None:
        head, end, body = self.chat(mark, "expect: 100-continue").partition(b"\r\n\r\n")
        self.check_chat(mark, await self.exchange(head + end, body))

    async def send_head(self, mark: str) -> None:
        answer = await self.exchange(self.request("HEAD", "/health"), is_head=True)
        assert (answer.status, answer.body) == (200, b""), mark

    async def send_models(self, mark: str) -> None:
        answer = await self.exchange(self.request("GET", "/v1/models"))
        found = {model["id"] for model in orjson.loads(answer.body)["data"]}
        assert found == set(TENANTS[self.tenant]) | {"vendor/alias"} & found, (mark, answer)
        assert ("sleeping" in found) == (self.tenant == "bert"), (mark, answer)

    async def send_stranger(self, mark: str) -> None:
        raw = self.chat(mark).replace(KEYS[self.tenant].encode(), b"sk-comptoir-none")
        answer = await self.exchange(raw)
        assert answer.status == 401, (mark, answer)

    async def send_nonsense(self, mark: str) -> None:
        answer = await self.exchange(self.chat(mark).replace(b'"model"', b'"modem"'))
        assert answer.status == 400, (mark, answer)

    # ---- the wire ------------------------------------------------------------------------------------

    @property
    def other(self) -> str:
        return next(name for name in TENANTS if name != self.tenant)

    def request(self, method: str, path: str, *headers: str, tenant: str = "") -> bytes:
        key = KEYS[tenant or self.tenant]
        lines = [f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {key}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def chat(self, mark: str, *headers: str, stream: bool = False) -> bytes:
        body = orjson.dumps(
            {
                "model": "fake",
                "messages": [{"role": "user", "content": mark}],
                "max_tokens": 3,
                "stream": stream,
            }
        )
        said = ("content-type: application/json", f"content-length: {len(body)}", *headers)
        return self.request("POST", "/v1/chat/completions", *said) + body

    def check_chat(self, mark: str, answer: Answer) -> None:
        assert answer.status == 200, (mark, answer)
        assert orjson.loads(answer.body)["choices"][0]["message"]["content"] == mark

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        return self._streams

    def leave(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def exchange(self, raw: bytes, later: bytes = b"", *, is_head: bool = False) -> Answer:
        """Send, with the rest a moment later, and read one answer."""
        reader, writer = await self.connect()
        writer.write(raw)
        if later:
            await asyncio.sleep(0.005)
            writer.write(later)
        answer = await read_answer(reader, is_head=is_head)
        if answer.closes:
            self.leave()
        return answer


async def read_answer(reader: asyncio.StreamReader, *, is_head: bool) -> Answer:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        if status != 100:
            break
    headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    body = b""
    if is_head:
        pass
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        assert await reader.readline() == b"\r\n"
    else:
        body = await reader.read()
    return Answer(status, body, headers.get("connection") == "close")


async def reachable(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def gateway(make_site: SiteFactory) -> int:
    keys = tuple(
        KeyConfig(name=name, hash=hash_key(KEYS[name]), models=models)
        for name, models in TENANTS.items()
    )
    site = await make_site(Echo(keep_bodies=False), config=GatewayConfig(keys=keys))
    return site.front.port


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_every_answer_is_that_of_its_own_request(
    name: str, gateway: int, tmp_path: Path
) -> None:
    with proxy(name, gateway, tmp_path) as port:
        await reachable(port)
        clients = [
            Client(port, tenant, random.Random(f"{name}{number}{tenant}"))
            for number in range(CLIENTS // len(TENANTS))
            for tenant in TENANTS
        ]
        numbers = iter(range(REQUESTS))
        await asyncio.gather(*(client.run(numbers) for client in clients))
    assert sum(sum(client.done.values()) for client in clients) == REQUESTS
    assert {kind for client in clients for kind in client.done} == {
        name for name in dir(Client) if name.startswith("send_")
    }
