"""The cost of the gateway: added latency, requests and chunks per second of its CPU."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import uvloop

from loadtests.analysis.stats import percentile
from loadtests.bench.null.engine import EXTRA_EVENTS
from loadtests.bench.null.gateway import MODEL
from loadtests.bench.raw_http import Connection, request_bytes
from loadtests.processes.child import Child, cpu_s
from serving.settings import hash_key

START_TIMEOUT_S = 30.0
WARM_UP_REQUESTS = 300
T = TypeVar("T")


@dataclass(frozen=True)
class NullPlan:
    """The amounts of load."""

    latency_requests: int = 1000
    parallel: int = 64
    parallel_s: float = 4.0
    streams: int = 200
    chunks: int = 150
    interval_ms: float = 20.0


@dataclass(frozen=True)
class Site:
    """A gateway with a null engine behind it, and requests for each."""

    gateway: Child
    gateway_address: str
    engine_address: str
    key: str
    token: str

    def through(self, *, stream: bool = False, max_tokens: int = 64) -> bytes:
        """A request to the gateway."""
        headers = {"authorization": f"Bearer {self.key}"}
        body = chat_body(MODEL, stream=stream, max_tokens=max_tokens)
        return request_bytes(self.gateway_address, headers, body)

    def direct(self) -> bytes:
        """A request to the engine, as the gateway would send it."""
        headers = {"x-comptoir-token": self.token}
        body = chat_body(MODEL, stream=False, max_tokens=64)
        return request_bytes(self.engine_address, headers, body)


def chat_body(model: str, *, stream: bool, max_tokens: int) -> dict[str, object]:
    """A chat completion of an ordinary size."""
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer in one sentence."},
            {"role": "user", "content": "What does a gateway in front of an engine cost? " * 3},
        ],
        "max_tokens": max_tokens,
        "temperature": 0.7,
        "stream": stream,
    }


@contextmanager
def site(interval_ms: float) -> Iterator[Site]:
    """Start the engine and the gateway, each in a process of its own."""
    key, token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    engine_args = ("loadtests.bench.null.engine", token, str(interval_ms))
    with Child.module("the null engine", *engine_args) as engine:
        engine_address = f"127.0.0.1:{engine.read_line(START_TIMEOUT_S)}"
        gateway_args = ("loadtests.bench.null.gateway", f"http://{engine_address}", token)
        with Child.module("the gateway", *gateway_args, hash_key(key)) as gateway:
            gateway_address = f"127.0.0.1:{gateway.read_line(START_TIMEOUT_S)}"
            yield Site(gateway, gateway_address, engine_address, key, token)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run on the event loop that costs the least."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def measure(plan: NullPlan, say: Callable[[str], None]) -> dict[str, float]:
    """Every figure once, by name."""
    with site(plan.interval_ms) as place:
        figures = run(added_latency(place, plan))
        say(f"added latency {figures['added_p50_ms']:.2f} ms")
        figures |= run(requests_per_core(place, plan))
        say(f"{figures['requests_per_core_s']:,.0f} requests per second of a core")
        figures |= run(chunks_per_core(place, plan))
        say(f"{figures['chunks_per_core_s']:,.0f} chunks per second of a core")
        return figures


async def added_latency(place: Site, plan: NullPlan) -> dict[str, float]:
    """One request at a time, in turn through the gateway and straight to the engine."""
    through, direct = place.through(), place.direct()
    via = await Connection.open(place.gateway_address)
    straight = await Connection.open(place.engine_address)
    for _ in range(WARM_UP_REQUESTS):
        await via.start(through)
        await straight.start(direct)
    via_ms, straight_ms = [], []
    for _ in range(plan.latency_requests):
        via_ms.append(1000 * await via.start(through))
        straight_ms.append(1000 * await straight.start(direct))
    errors = via.errors + straight.errors
    via.close()
    straight.close()
    return {
        "gateway_p50_ms": percentile(via_ms, 50),
        "gateway_p99_ms": percentile(via_ms, 99),
        "engine_p50_ms": percentile(straight_ms, 50),
        "engine_p99_ms": percentile(straight_ms, 99),
        "added_p50_ms": percentile(via_ms, 50) - percentile(straight_ms, 50),
        "added_p99_ms": percentile(via_ms, 99) - percentile(straight_ms, 99),
        "latency_errors": errors,
    }


async def requests_per_core(place: Site, plan: NullPlan) -> dict[str, float]:
    """Requests back to back on parallel connections."""
    request = place.through()
    connections = [await Connection.open(place.gateway_address) for _ in range(plan.parallel)]
    process = psutil.Process(place.gateway.pid)

    async def repeat(connection: Connection, until_s: float) -> int:
        count = 0
        while time.perf_counter() < until_s:
            await connection.start(request)
            count += 1
        return count

    async def all_of_them(seconds: float) -> int:
        until_s = time.perf_counter() + seconds
        return sum(await asyncio.gather(*(repeat(each, until_s) for each in connections)))

    await all_of_them(0.5)
    cpu_before_s, began_s = cpu_s(process), time.perf_counter()
    count = await all_of_them(plan.parallel_s)
    elapsed_s, used_s = time.perf_counter() - began_s, cpu_s(process) - cpu_before_s
    errors = sum(connection.errors for connection in connections)
    for connection in connections:
        connection.close()
    return {
        "requests_per_s": count / elapsed_s,
        "requests_per_core_s": count / used_s,
        "gateway_cores_at_requests": used_s / elapsed_s,
        "request_errors": errors,
    }


async def chunks_per_core(place: Site, plan: NullPlan) -> dict[str, float]:
    """Streams side by side; counted while all of them run, so that no request's beginning counts."""
    request = place.through(stream=True, max_tokens=plan.chunks)
    connections = [await Connection.open(place.gateway_address) for _ in range(plan.streams)]
    process = psutil.Process(place.gateway.pid)
    whole_cpu_s = cpu_s(process)
    began_s = time.perf_counter()
    done = [connection.start(request) for connection in connections]
    await asyncio.gather(*(connection.first for connection in connections))
    before, began_window_s = _counts(connections), time.perf_counter()
    cpu_before_s = cpu_s(process)
    # The first stream to end began first; a little before that.
    ends_s = began_s + plan.chunks * plan.interval_ms / 1000
    await asyncio.sleep(max(0.0, ends_s - time.perf_counter() - 0.05))
    used_s, window_s = cpu_s(process) - cpu_before_s, time.perf_counter() - began_window_s
    events, frames, reads = (b - a for a, b in zip(before, _counts(connections), strict=True))
    await asyncio.gather(*done)
    whole_s, whole_cpu_s = time.perf_counter() - began_s, cpu_s(process) - whole_cpu_s
    received, _, _ = _counts(connections)
    expected = plan.streams * (plan.chunks + EXTRA_EVENTS)
    errors = sum(connection.errors for connection in connections)
    for connection in connections:
        connection.close()
    return {
        "chunks_per_s": events / window_s,
        "chunks_per_core_s": events / used_s,
        "gateway_cores_at_chunks": used_s / window_s,
        "chunks_per_write": events / frames,
        "chunks_per_read": events / reads,
        "whole_chunks_per_core_s": received / whole_cpu_s,
        "late_s": whole_s - plan.chunks * plan.interval_ms / 1000,
        "lost_chunks": expected - received,
        "stream_errors": errors,
    }


def _counts(connections: list[Connection]) -> tuple[int, int, int]:
    return (
        sum(connection.events for connection in connections),
        sum(connection.frames for connection in connections),
        sum(connection.reads for connection in connections),
    )
