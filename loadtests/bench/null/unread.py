"""`make bench ARGS=unread`: many clients of one tenant never read; what another tenant notices."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from loadtests.analysis.stats import percentile
from loadtests.bench import output
from loadtests.bench.bars import UNREAD_BARS
from loadtests.bench.null.engine import (
    CHUNK_FRAME,
    FINISH_FRAME,
    LAST_FRAME,
    STREAM_HEAD,
)
from loadtests.bench.null.gateway import MODEL
from loadtests.bench.null.measure import START_TIMEOUT_S, chat_body, run
from loadtests.bench.null.rounds import conclude
from loadtests.bench.raw_http import Connection, request_bytes
from loadtests.processes.child import Child, raise_open_files_limit
from serving.settings import hash_key

# Its slots would never be free; after so long nobody waits for them any more.
GIVE_UP_S = 120.0
PACE_S = 0.02
ROWS = (
    ("requests open at the engine, at most", "open_at_most", ""),
    ("every slot is free after", "free_after_s", "s"),
    ("good client's TTFT before, p50", "before_p50_ms", "ms"),
    ("good client's TTFT before, p99", "before_p99_ms", "ms"),
    ("beside those that do not read, p50", "beside_p50_ms", "ms"),
    ("beside those that do not read, p99", "beside_p99_ms", "ms"),
    ("p99, multiple of before", "ttft_p99_ratio", ""),
    ("errors of the good client", "errors", ""),
)


@dataclass(frozen=True)
class UnreadPlan:
    """Number of clients that never read, and length of the measurement before they come."""

    clients: int = 200
    before_s: float = 10.0


class Torrent:
    """An engine that answers at once: one token, or as much as anybody takes.

    Attributes:
        running: requests that are not answered in whole.
    """

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = orjson.loads(await reader.readexactly(length))
                    await self._answer(writer, int(body["max_tokens"]))
        finally:
            writer.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter, tokens: int) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            writer.write(STREAM_HEAD)
            while tokens > 0:
                writer.write(CHUNK_FRAME * min(tokens, 100))
                tokens -= 100
                await writer.drain()
            writer.write(FINISH_FRAME + LAST_FRAME)
        finally:
            self.running -= 1


def run_mode(plan: UnreadPlan, rounds: int, *, strict: bool) -> int:
    """Measure, print, write; the exit code."""
    raise_open_files_limit(4 * plan.clients + 256)
    progress = output.Progress(rounds)
    results = []
    for index in range(rounds):
        progress.begin(f"round {index + 1} of {rounds}: {plan.clients} clients that do not read")
        results.append(run(measure(plan)))
        progress.done(f"slots free after {results[-1]['free_after_s']:.1f} s")
    return conclude(
        "unread",
        f"{plan.clients} clients never read, keys on",
        ROWS,
        plan,
        results,
        sum(found["errors"] for found in results),
        UNREAD_BARS,
        strict=strict,
    )


async def measure(plan: UnreadPlan) -> dict[str, float]:
    """The good client alone, then beside the others until their slots are free."""
    engine = Torrent()
    bad_key, good_key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    async with _gateway(engine, bad_key, good_key) as address:
        good = request_bytes(
            address,
            {"authorization": f"Bearer {good_key}"},
            chat_body(MODEL, stream=True, max_tokens=1),
        )
        bad = request_bytes(
            address,
            {"authorization": f"Bearer {bad_key}"},
            chat_body(MODEL, stream=True, max_tokens=100_000),
        )
        client = _Good(address, good)
        await client.ask(until_s=time.perf_counter() + 1)
        before = await client.ask(until_s=time.perf_counter() + plan.before_s)
        engine.most = 0
        unread = await asyncio.gather(*(_unread(address, bad) for _ in range(plan.clients)))
        began_s = time.perf_counter()
        asking = asyncio.create_task(client.ask(until_s=began_s + GIVE_UP_S))
        free_after_s = await _free(engine, began_s)
        client.is_done = True
        beside = await asking
        for one in unread:
            one.close()
        await client.close()
    return {
        "open_at_most": engine.most,
        "free_after_s": free_after_s,
        "before_p50_ms": percentile(before, 50),
        "before_p99_ms": percentile(before, 99),
        "beside_p50_ms": percentile(beside, 50),
        "beside_p99_ms": percentile(beside, 99),
        "ttft_p99_ratio": percentile(beside, 99) / percentile(before, 99),
        "errors": client.errors,
    }


@asynccontextmanager
async def _gateway(engine: Torrent, *keys: str) -> AsyncIterator[str]:
    server = await asyncio.start_server(engine.take, "127.0.0.1", 0, backlog=4096)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    arguments = ("loadtests.bench.null.gateway", url, secrets.token_urlsafe(32))
    with Child.module("the gateway", *arguments, *map(hash_key, keys)) as gateway:
        port = await asyncio.to_thread(gateway.read_line, START_TIMEOUT_S)
        yield f"127.0.0.1:{port}"
    server.close()


class _Good:
    """One request after the other on one connection; a new one when that has ended."""

    def __init__(self, address: str, request: bytes) -> None:
        self._address, self._request = address, request
        self._connection: Connection | None = None
        self.errors = 0
        self.is_done = False

    async def ask(self, until_s: float) -> list[float]:
        """The times to the first byte, in milliseconds."""
        found = []
        while time.perf_counter() < until_s and not self.is_done:
            if self._connection is None or not self._connection.is_open:
                await self.close()
                self._connection = await Connection.open(self._address)
            done = self._connection.start(self._request)
            found.append(1000 * await self._connection.first)
            await done
            await asyncio.sleep(PACE_S)
        return found

    async def close(self) -> None:
        """Leave, and count what went wrong."""
        if self._connection is not None:
            self.errors += self._connection.errors
            self._connection.close()
        self._connection = None


async def _unread(address: str, request: bytes) -> socket.socket:
    """A client that asks and never reads."""
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    await loop.sock_sendall(sock, request)
    return sock


async def _free(engine: Torrent, began_s: float) -> float:
    """When the engine has had none but the good client's requests for half a second."""
    free_s = began_s
    await asyncio.sleep(2)
    while (now := time.perf_counter()) < began_s + GIVE_UP_S:
        if engine.running > 1:
            free_s = now
        elif now - free_s > 0.5:
            break
        await asyncio.sleep(0.05)
    return free_s - began_s
