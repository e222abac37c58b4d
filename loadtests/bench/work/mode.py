"""`make bench ARGS=work`: the longest time that one request holds a gateway's event loop, body by body."""

from __future__ import annotations

import asyncio
import gc
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvloop

from loadtests.bench import output
from loadtests.bench.bars import WORK_BARS, judge
from loadtests.bench.null.gateway import MODEL
from loadtests.bench.tables import number, table
from loadtests.bench.work.bodies import SIZE, Nasty, nasty_bodies
from loadtests.bench.work.looks import looks_rows, measure_looks
from loadtests.processes.child import Child
from serving import api
from serving.discovery.directory import Directory, Model, Replica
from serving.gateway.asgi import build_asgi
from serving.gateway.services import Services
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig

START_TIMEOUT_S, ANSWER_TIMEOUT_S = 30.0, 30.0
# Between two looks of the ticker.
TICK_S = 0.001


@dataclass(frozen=True)
class WorkPlan:
    """Number of sends per body; the best time counts, as caches only make it worse."""

    rounds: int = 5
    size_bytes: int = SIZE


@dataclass(frozen=True)
class Held:
    """One body: the longest stall that it causes, when its answer was there, and its status."""

    name: str
    stall_ms: float
    answer_ms: float
    status: int


def run(plan: WorkPlan, *, strict: bool) -> int:
    """Measure, print, write; the exit code."""
    token = secrets.token_urlsafe(32)
    bodies = list(nasty_bodies(plan.size_bytes))
    progress = output.Progress(1 + len(bodies))
    with Child.module("the null engine", "loadtests.bench.null.engine", token, "0") as engine:
        url = f"http://127.0.0.1:{engine.read_line(START_TIMEOUT_S)}"
        found = uvloop.run(_measure(plan, bodies, url, token, progress))
    rows = [
        [one.name, str(one.status), number(one.stall_ms, "ms"), number(one.answer_ms, "ms")]
        for one in found
    ]
    head = [
        f"one request of {plan.size_bytes // 1024} KiB",
        "status",
        "longest stall",
        "answer after",
    ]
    output.show_below(table(head, rows))
    looks = measure_looks()
    looks_head = ["a site of so many models", "one look", "after a change"]
    output.show_below(table(looks_head, looks_rows(looks)))
    worst = max(found[1:], key=lambda one: one.stall_ms)
    figures = {"worst_stall_ms": worst.stall_ms, "idle_stall_ms": found[0].stall_ms}
    path = output.write(
        "work",
        {
            "plan": vars(plan),
            "median": figures,
            "bodies": [vars(one) for one in found],
            "looks": looks,
        },
    )
    code = output.conclude(judge(WORK_BARS, figures), strict=strict)
    print(f"\nwritten to {path}")
    return code


async def _measure(
    plan: WorkPlan, bodies: list[Nasty], url: str, token: str, progress: output.Progress
) -> list[Held]:
    async with _gateway(url, token) as port:
        small = b'{"model":"%b","max_tokens":1,"messages":[{"role":"user","content":"a"}]}'
        usual = Nasty("an ordinary request", api.CHAT, small % MODEL.encode())
        await _held(usual, port, 20)
        found = []
        for body in (usual, *bodies):
            found.append(await _held(body, port, plan.rounds))
            progress.done(f"{body.name}: {found[-1].stall_ms:.1f} ms")
        return found


@asynccontextmanager
async def _gateway(url: str, token: str) -> AsyncIterator[int]:
    # Two replicas, so that prompts are hashed to choose between them.
    replicas = tuple(Replica(f"null-{number}", url, token) for number in (1, 2))
    directory = Directory([Model(MODEL, ModelCard(task="chat", vendor="bench"), replicas)])
    services = Services.build(GatewayConfig(), lambda: directory)
    listener = Listener(build_asgi(services), "127.0.0.1")
    await listener.start()
    gc.collect()
    gc.freeze()
    try:
        yield listener.port
    finally:
        await listener.close()
        await services.stop()


async def _held(body: Nasty, port: int, rounds: int) -> Held:
    loop = asyncio.get_running_loop()
    stalls, answers, status = [], [], 0
    for _ in range(rounds):
        watch = _Watch()
        ticker = asyncio.create_task(watch.tick())
        began_s = time.perf_counter()
        # In a thread: on the loop, the client's own work would be measured with the gateway's.
        status = await loop.run_in_executor(None, _send, body, port)
        answers.append(1000 * (time.perf_counter() - began_s))
        await asyncio.sleep(5 * TICK_S)
        ticker.cancel()
        stalls.append(1000 * watch.longest_s)
    return Held(body.name, min(stalls), min(answers), status)


class _Watch:
    """The longest work of the event loop between two of its turns.

    In CPU seconds of its thread: what other processes take from it is none of the request's doing.
    """

    longest_s = 0.0

    async def tick(self) -> None:
        while True:
            began_s = time.thread_time()
            await asyncio.sleep(TICK_S)
            self.longest_s = max(self.longest_s, time.thread_time() - began_s)


def _send(body: Nasty, port: int) -> int:
    """Send it on a connection of its own; the status of the answer."""
    head = (
        f"POST {body.path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body.text)}\r\nconnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S) as client:
        client.sendall(head.encode() + body.text)
        answer = client.recv(65536)
        while client.recv(65536):
            pass
    return int(answer.split(None, 2)[1])
