"""Compares replica policies on two real engines: how much of the prompts each finds cached.

    python -m loadtests.checks.routing_real              # --whole: answers that are not streamed

Eight conversations of six turns with shared system prompts, at once, through the gateway. The oracle is one
engine that gets everything: nothing that was computed before is ever computed again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.table import Table

from loadtests.answers.dialects import reading
from loadtests.answers.ends import in_words
from loadtests.answers.reading import Expected, Reading
from loadtests.bench.compare.contenders import CONTENDERS, MODEL, Place
from loadtests.processes.child import Child
from loadtests.processes.free_ports import free_port
from serving import api
from serving.catalogue import tiny
from serving.commands.output import run, show
from serving.config.replica_routing import ReplicaRoutingConfig
from serving.discovery.directory import Directory, Model, Replica
from serving.errors import ComptoirError
from serving.gateway.asgi import build_asgi
from serving.gateway.lanes import Lane
from serving.gateway.services import Services
from serving.listener import Listener
from serving.replica_facts import ModelCard
from serving.replicas.choice import Choice, RoutedRequest
from serving.replicas.retry_budget import RetryBudget
from serving.settings import GatewayConfig, KeyConfig, ProcessSettings, hash_key

CONVERSATIONS = 8
TURNS = 6
SYSTEM_PROMPTS = 2
START_TIMEOUT_S = 120.0
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Found:
    """Tokens of all prompts, and those that an engine had cached."""

    prompt_tokens: int
    cached_tokens: int

    @property
    def share(self) -> float:
        """Cached of all."""
        return self.cached_tokens / self.prompt_tokens


class RoundRobin:
    """One replica after the other, as routers without knowledge do."""

    name: Any = "round-robin"
    reads_prompt = False

    def __init__(self) -> None:
        self._turn = itertools.count()

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        """The next one."""
        return Choice(replicas[next(self._turn) % len(replicas)], self.name, "load")

    def began(self, choice: Choice) -> None:
        """Nothing to learn."""

    def served(self, *_: Any) -> None:
        """Nothing to learn."""

    def forget(self, live: Collection[str]) -> None:
        """Nothing is known."""


async def converse(
    session: aiohttp.ClientSession, url: str, key: str, number: int, *, is_streamed: bool
) -> list[Reading]:
    """One conversation; returns the answer of each turn."""
    words = random.Random(number)
    system = random.Random(f"system {number % SYSTEM_PROMPTS}")
    messages = [{"role": "system", "content": " ".join(system.choices(WORDS, k=80))}]
    answers = []
    for _ in range(TURNS):
        await asyncio.sleep(words.uniform(0.0, 0.3))
        messages.append({"role": "user", "content": " ".join(words.choices(WORDS, k=20))})
        answers.append(await ask(session, url, key, messages, is_streamed=is_streamed))
        messages.append({"role": "assistant", "content": answers[-1].text})
    return answers


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    key: str,
    messages: list[dict[str, str]],
    *,
    is_streamed: bool,
) -> Reading:
    """One turn.

    Raises:
        ComptoirError: the answer is none, so that nothing can be learned from its tokens.
    """
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": messages,
        "max_tokens": 16,
        "temperature": 0,
        "ignore_eos": True,
    }
    if is_streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": f"Bearer {key}"}
    path = api.CHAT
    answer = reading(Expected.of(path, body), keep_text=True)
    async with session.post(f"{url}{path}", json=body, headers=headers) as response:
        response.raise_for_status()
        answer.begin(response.content_type)
        async for piece in response.content.iter_any():
            answer.feed(piece)
    if answer.finish() or answer.prompt_tokens < 0:
        raise ComptoirError(
            f"an answer is not valid: {in_words(answer.failure) or 'it has no usage'}"
        )
    return answer


async def measure(policy: str, urls: Sequence[str], *, is_streamed: bool) -> Found:
    """The whole workload through a gateway of its own, under a key of its own: caches begin empty."""
    key = f"sk-{policy}-{time.monotonic_ns()}"
    real = policy if policy in ("prefix", "session", "least-loaded") else "least-loaded"
    config = GatewayConfig(
        keys=(KeyConfig(name=policy, hash=hash_key(key)),),
        replica_routing=ReplicaRoutingConfig.model_validate({"policy": real}),
    )
    replicas = tuple(Replica(f"r{n}", url, "none") for n, url in enumerate(urls))
    directory = Directory([Model(MODEL, ModelCard(task="chat"), replicas)])
    services = Services.build(config, lambda: directory)
    if policy == "round-robin":
        budget = RetryBudget(config.retries)
        services.forwarder.lanes[MODEL] = Lane(RoundRobin(), budget, replicas)
    listener = Listener(build_asgi(services), "127.0.0.1")
    await listener.start()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.port}"
            talks = (
                converse(session, url, key, number, is_streamed=is_streamed)
                for number in range(CONVERSATIONS)
            )
            found = list(itertools.chain.from_iterable(await asyncio.gather(*talks)))
    finally:
        await listener.close()
        await services.upstream.stop()
    return Found(
        sum(answer.prompt_tokens for answer in found),
        sum(answer.cached_tokens for answer in found),
    )


async def answers(url: str) -> None:
    """Wait for an engine."""
    deadline = time.monotonic() + START_TIMEOUT_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(url + api.HEALTH) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise SystemExit(f"{url} does not answer after {START_TIMEOUT_S:.0f} s")


async def compare(urls: Sequence[str], *, is_streamed: bool) -> dict[str, Found]:
    """Every policy in turn."""
    await asyncio.gather(*(answers(url) for url in urls))
    measured = partial(measure, is_streamed=is_streamed)
    await measured("least-loaded", urls)  # the first requests of an engine are slow
    found = {"oracle": await measured("oracle", urls[:1])}
    for policy in ("round-robin", "least-loaded", "session", "prefix"):
        found[policy] = await measured(policy, urls)
    return found


def found_by_policies(*, is_streamed: bool) -> dict[str, Found]:
    """Run two engines, and compare the policies on them."""
    model = tiny.build(tiny.family("qwen3"), ProcessSettings.load().cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        ports = [free_port(), free_port()]
        launches = [
            CONTENDERS["vllm"].launch(Place(model, Path(folder), port, "none")) for port in ports
        ]
        engines = [
            Child(f"engine {number}", launch.command, launch.env)
            for number, launch in enumerate(launches)
        ]
        try:
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            return asyncio.run(compare(urls, is_streamed=is_streamed))
        finally:
            for engine in engines:
                engine.stop()


@app.command()
def routing_real(
    whole: Annotated[
        bool, typer.Option("--whole", help="Ask for answers that are not streamed.")
    ] = False,
) -> None:
    """Compare replica policies on two real engines: how much of the prompts each finds cached.

    Ends with 0 when `prefix` finds 90 % of what the oracle does, and more than the others; else with 1.

    Example: python -m loadtests.checks.routing_real --whole
    """
    found = found_by_policies(is_streamed=not whole)
    best = found["oracle"].cached_tokens
    print(f"{CONVERSATIONS} conversations of {TURNS} turns, two engines")
    head = ("policy", "cached tokens", "prompt tokens", "share", "of the oracle's")
    table = Table(*head, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for policy, one in found.items():
        tokens = (f"{one.cached_tokens:,}", f"{one.prompt_tokens:,}")
        table.add_row(policy, *tokens, f"{one.share:.0%}", f"{one.cached_tokens / best:.0%}")
    show(table)
    ours = found["prefix"].cached_tokens
    others = max(found[name].cached_tokens for name in ("round-robin", "least-loaded"))
    raise typer.Exit(0 if ours >= 0.9 * best and ours > others else 1)


if __name__ == "__main__":
    run(app)
