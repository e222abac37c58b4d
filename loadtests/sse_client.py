"""A streaming client that times every chunk: what the benchmarks measure with."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass
class Timing:
    """One streamed request; times in seconds.

    ttft_s runs from sending to the first chunk with text; gaps_s are the times between such chunks.
    """

    ttft_s: float = 0.0
    total_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    tokens: int = 0
    error: str | None = None


async def stream_once(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Timing:
    """Send one chat completion with `stream` and read it to the end."""
    timing = Timing()
    began = last = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                timing.error = f"status {response.status}"
                return timing
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                if b'"error"' in line[:16]:
                    timing.error = "error event"
                    return timing
                if b'"content":"' not in line.replace(b'": "', b'":"'):
                    continue
                now = time.perf_counter()
                if timing.tokens:
                    timing.gaps_s.append(now - last)
                else:
                    timing.ttft_s = now - began
                last = now
                timing.tokens += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        timing.error = type(error).__name__
    timing.total_s = time.perf_counter() - began
    return timing


@dataclass(frozen=True)
class Round:
    """One burst of parallel streams."""

    requests_per_s: float
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    errors: int


async def burst(url: str, model: str, *, streams: int, requests: int, tokens: int) -> Round:
    """Keep `streams` requests in flight until `requests` are done."""
    gate = asyncio.Semaphore(streams)
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0)

    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one(number: int) -> Timing:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": f"Request {number}: count to a hundred"}],
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
            async with gate:
                return await stream_once(session, url, body)

        began = time.perf_counter()
        timings = await asyncio.gather(*(one(number) for number in range(requests)))
        seconds = time.perf_counter() - began
    good = [timing for timing in timings if timing.error is None]
    ttfts = sorted(timing.ttft_s for timing in good) or [0.0]
    gaps = [gap for timing in good for gap in timing.gaps_s] or [0.0]
    return Round(
        requests_per_s=len(good) / seconds,
        tokens_per_s=len(good) * tokens / seconds,
        ttft_p50_ms=1000 * statistics.median(ttfts),
        ttft_p99_ms=1000 * ttfts[min(len(ttfts) - 1, int(0.99 * len(ttfts)))],
        itl_p50_ms=1000 * statistics.median(gaps),
        errors=len(timings) - len(good),
    )
