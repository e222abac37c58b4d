"""Our own load client: parallel chat completions, streamed or not, every event timed.

It decodes no JSON while it measures, so that on a small machine most of the CPU is left to the server.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from loadtests.bench.summary import percentile
from loadtests.raw_http import TimedConnection, request_bytes

# `usage` and `[DONE]`: the events at the end of a stream that carry no token.
TOKENLESS_EVENTS = 2
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Burst:
    """So many requests, so many of them at once."""

    address: str
    model: str
    prompts: Sequence[str]
    streams: int
    tokens: int
    stream: bool
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, prompt: str) -> bytes:
        """The bytes of one request."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": self.stream,
        }
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return request_bytes(self.address, self.headers, body)


@dataclass
class Samples:
    """What was seen, request by request; times in seconds."""

    latencies_s: list[float] = field(default_factory=list)
    ttfts_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    per_token_s: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: int = 0

    def add(self, connection: TimedConnection, latency_s: float, burst: Burst) -> None:
        """Take in one request that has ended."""
        tokens = connection.completion_tokens
        if connection.errors or connection.has_error_event or tokens != burst.tokens:
            self.errors += 1
            return
        self.tokens += tokens
        self.latencies_s.append(latency_s)
        if not burst.stream:
            return
        arrivals_s = connection.arrivals_s[:-TOKENLESS_EVENTS]
        self.ttfts_s.append(arrivals_s[0] - connection.began_s)
        self.gaps_s += [b - a for a, b in pairwise(arrivals_s)]
        if tokens > 1:
            self.per_token_s.append((arrivals_s[-1] - arrivals_s[0]) / (tokens - 1))

    def figures(self, seconds: float) -> dict[str, float]:
        """The figures of a burst that took so long."""
        found = {
            "requests_per_s": len(self.latencies_s) / seconds,
            "tokens_per_s": self.tokens / seconds,
            "tokens": float(self.tokens),
            "errors": float(self.errors),
            "seconds": seconds,
        }
        for name, values_s in (
            ("latency", self.latencies_s),
            ("ttft", self.ttfts_s),
            ("itl", self.gaps_s),
        ):
            if values_s:
                found[f"{name}_p50_ms"] = 1000 * statistics.median(values_s)
                found[f"{name}_p99_ms"] = 1000 * percentile(values_s, 99)
        if self.per_token_s:
            found["tpot_p50_ms"] = 1000 * statistics.median(self.per_token_s)
        return found


async def run(burst: Burst) -> dict[str, float]:
    """Keep `streams` requests in flight until every prompt has been answered."""
    samples = Samples()
    requests = iter([burst.request(prompt) for prompt in burst.prompts])
    began_s = time.perf_counter()
    count = min(burst.streams, len(burst.prompts))
    await asyncio.gather(*(_work(burst, requests, samples) for _ in range(count)))
    return samples.figures(time.perf_counter() - began_s)


async def _work(burst: Burst, requests: Iterator[bytes], samples: Samples) -> None:
    connection: TimedConnection | None = None
    for request in requests:
        try:
            if connection is not None and connection.errors:
                connection.close()
            if connection is None or not connection.is_open:
                connection = await TimedConnection.open(burst.address)
            async with asyncio.timeout(TIMEOUT_S):
                latency_s = await connection.start(request)
        except (OSError, TimeoutError):
            samples.errors += 1
            connection = None
            continue
        samples.add(connection, latency_s, burst)
    if connection is not None:
        connection.close()
