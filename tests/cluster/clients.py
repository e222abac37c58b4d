"""Clients of a cluster: some know one gateway, others come through a load balancer with health checks."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from loadtests.answers.dialects import reading
from loadtests.answers.ends import in_words
from loadtests.answers.reading import Expected
from loadtests.checks.chaos.load import fate_of

# As in docs/bare-metal.md: inter 500ms fall 2 rise 20. A node that comes back is about to start anew.
CHECK_EVERY_S = 0.5
CHECK_TIMEOUT_S = 1.0
FALL = 2
RISE = 20

# lost: the stream's gateway itself went; nobody is left who could say so.
Fate = Literal["answered", "not started", "broken, said so", "broken silently", "lost"]


@dataclass(frozen=True)
class Outcome:
    """One request; times in seconds on the monotonic clock; `gateway` is the last one asked."""

    began_s: float
    ended_s: float
    streamed: bool
    fate: Fate
    gateway: str
    tries: int
    tokens: int
    detail: str = ""


class _Down(Exception):
    """The balancer closes the connections of a gateway that fails its checks."""


@dataclass(eq=False)
class Gateway:
    """One gateway as the balancer sees it."""

    name: str
    url: str
    is_up: bool = True
    # Gets nothing new, and keeps what it has.
    is_leaving: bool = False
    streak: int = 0
    open: set[asyncio.Task[Any]] = field(default_factory=set)


class Clients:
    """Sends requests to the gateways by name, or to whichever is up.

    Args:
        gateways: their URLs by name.
    """

    def __init__(self, gateways: dict[str, str], model: str, key: str) -> None:
        self.gateways = {name: Gateway(name, url) for name, url in gateways.items()}
        self.outcomes: list[Outcome] = []
        # Of each worker, between two requests.
        self.pause_s = 0.05
        self._model = model
        self._headers = {"Authorization": f"Bearer {key}"}
        self._turn = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Clients:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=120),
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
        )
        self._checks = [asyncio.create_task(self._check(each)) for each in self.gateways.values()]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._session.close()

    def keep_asking(self, workers: int, via: str | None, tokens: int = 32) -> None:
        """Keep requests in flight, every second one streamed, until the end."""
        self._tasks += [
            asyncio.create_task(self._work(number, via, tokens)) for number in range(workers)
        ]

    async def status(self, name: str) -> dict[str, Any]:
        """What a gateway says of the model; nothing while it does not answer."""
        try:
            async with self._session.get(
                f"{self.gateways[name].url}/status", timeout=aiohttp.ClientTimeout(total=2)
            ) as response:
                models = (await response.json())["models"] if response.status == 200 else []
        except (aiohttp.ClientError, TimeoutError, OSError):
            return {}
        return next((each for each in models if each["id"] == self._model), {})

    async def one(self, number: int, *, via: str | None, streamed: bool, tokens: int) -> Outcome:
        """Send one request and note its fate. Through the balancer, one that has not begun is sent again."""
        began_s = time.monotonic()
        # A client that knows one gateway has nobody else to ask.
        may_try = 1 if via is not None else 3
        tried: list[Gateway] = []
        while True:
            gateway = self.gateways[via] if via is not None else self._choose(tried)
            tried.append(gateway)
            fate, detail = await self._send(gateway, number, streamed, tokens)
            if fate != "not started" or len(tried) == may_try:
                break
        times_s = (began_s, time.monotonic())
        outcome = Outcome(*times_s, streamed, fate, gateway.name, len(tried), tokens, detail)
        self.outcomes.append(outcome)
        return outcome

    async def _work(self, worker: int, via: str | None, tokens: int) -> None:
        for number in itertools.count(worker):
            if self._stopping:
                return
            await self.one(number, via=via, streamed=number % 2 == 0, tokens=tokens)
            await asyncio.sleep(self.pause_s)

    def _choose(self, tried: Sequence[Gateway]) -> Gateway:
        every = list(self.gateways.values())
        up = [each for each in every if each.is_up and not each.is_leaving]
        # With none up, any: its own refusal says more than ours.
        choice = [each for each in up if each not in tried] or up or every
        return choice[next(self._turn) % len(choice)]

    async def _send(
        self, gateway: Gateway, number: int, streamed: bool, tokens: int
    ) -> tuple[Fate, str]:
        started = asyncio.Event()
        task = asyncio.create_task(self._post(gateway, number, streamed, tokens, started))
        gateway.open.add(task)
        try:
            await asyncio.wait({task})
        finally:
            gateway.open.discard(task)
            task.cancel()
        if task.cancelled():
            return ("lost", "its gateway went") if started.is_set() else ("not started", "down")
        return task.result()

    async def _post(
        self, gateway: Gateway, number: int, streamed: bool, tokens: int, started: asyncio.Event
    ) -> tuple[Fate, str]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"Request {number}: count to a hundred"}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": streamed,
        }
        path = "/v1/chat/completions"
        answer = reading(Expected.of(path, body))
        try:
            async with self._session.post(f"{gateway.url}{path}", json=body) as response:
                if response.status != 200:
                    return "not started", f"status {response.status}"
                answer.begin(response.content_type)
                async for piece in response.content.iter_any():
                    answer.feed(piece)
                    if answer.has_begun:
                        started.set()
            end = answer.finish()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return fate_of(answer, answer.lost()), type(error).__name__
        return fate_of(answer, end), in_words(end)

    async def _check(self, gateway: Gateway) -> None:
        timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
        ) as session:
            while True:
                try:
                    async with session.get(f"{gateway.url}/ready") as response:
                        good = response.status == 200
                except (aiohttp.ClientError, TimeoutError, OSError):
                    good = False
                gateway.streak = 0 if good == gateway.is_up else gateway.streak + 1
                if gateway.streak >= (FALL if gateway.is_up else RISE):
                    gateway.is_up, gateway.streak = good, 0
                    if not good and not gateway.is_leaving:
                        for task in gateway.open:
                            task.cancel()
                await asyncio.sleep(CHECK_EVERY_S)
