"""Steady load on one endpoint; the fate of each request: answered, not started, broken with a word or not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from loadtests.answers.dialects import reading
from loadtests.answers.ends import End, in_words
from loadtests.answers.reading import Expected, Reading
from serving import api

Fate = Literal["answered", "not started", "broken, said so", "broken silently"]


@dataclass(frozen=True)
class Outcome:
    """One request; times in seconds on the monotonic clock."""

    began_s: float
    ended_s: float
    streamed: bool
    fate: Fate
    detail: str = ""


@dataclass
class Load:
    """Keeps `workers` requests in flight, every second one streamed.

    Args:
        url: the endpoint, without /v1.
        tokens: of each answer.
        stream_tokens: of each streamed one: long enough for some to be under way at any moment.
        headers: of each request.
    """

    url: str
    model: str
    workers: int = 12
    tokens: int = 48
    stream_tokens: int = 48
    headers: Mapping[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    async def __aenter__(self) -> Load:
        # Longer than a request is held while an engine starts.
        timeout = aiohttp.ClientTimeout(total=200)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0), headers=self.headers
        )
        self._tasks = [asyncio.create_task(self._work(n)) for n in range(self.workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _work(self, worker: int) -> None:
        for number in itertools.count(worker):
            if self._stopping:
                return
            streamed = number % 2 == 0
            tokens = self.stream_tokens if streamed else self.tokens
            await self.one(number, streamed=streamed, tokens=tokens)

    async def one(self, number: int, *, streamed: bool, tokens: int) -> Outcome:
        """Send one request and note its fate."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": f"Request {number}: count to a hundred"}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": streamed,
        }
        if streamed:
            body["stream_options"] = {"include_usage": True}
        began_s = time.monotonic()
        fate, detail = await self._send(body)
        outcome = Outcome(began_s, time.monotonic(), streamed, fate, detail)
        self.outcomes.append(outcome)
        return outcome

    async def _send(self, body: dict[str, Any]) -> tuple[Fate, str]:
        path = api.CHAT
        answer = reading(Expected.of(path, body))
        try:
            async with self._session.post(f"{self.url}{path}", json=body) as response:
                if response.status != 200:
                    return "not started", f"status {response.status}"
                answer.begin(response.content_type)
                async for piece in response.content.iter_any():
                    answer.feed(piece)
            end = answer.finish()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return fate_of(answer, answer.lost()), type(error).__name__
        return fate_of(answer, end), in_words(end)


def fate_of(answer: Reading, end: End) -> Fate:
    """Of a request whose answer ended so; "" is a complete one."""
    if not end:
        return "answered"
    if not answer.has_begun:
        return "not started"
    return "broken, said so" if end == "error_event" else "broken silently"
