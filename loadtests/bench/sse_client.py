"""Our own load client: parallel chat completions, streamed or not, every event timed.

It decodes no JSON while it measures, so that on a small machine most of the CPU is left to the server:
answers are kept, and judged when all have come.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from loadtests.analysis.stats import percentile
from loadtests.answers.dialects import judged
from loadtests.answers.reading import Expected
from loadtests.bench.raw_http import TimedConnection, request_bytes

# `usage` and `[DONE]`: the events at the end of a stream that carry no token.
TOKENLESS_EVENTS = 2
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Burst:
    """A number of requests, some of them concurrent."""

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


class _Kept(NamedTuple):
    """An answer that came, whatever it is."""

    content_type: str
    pieces: list[bytes]
    arrivals_s: list[float]
    began_s: float
    latency_s: float


@dataclass
class Samples:
    """The measurements, request by request; times in seconds."""

    burst: Burst
    latencies_s: list[float] = field(default_factory=list)
    ttfts_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    per_token_s: list[float] = field(default_factory=list)
    tokens: int = 0
    errors: int = 0
    _kept: list[_Kept] = field(default_factory=list)

    def add(self, connection: TimedConnection, latency_s: float) -> None:
        """Take in one request that has ended."""
        if connection.errors:
            self.errors += 1
            return
        one = connection
        self._kept.append(
            _Kept(one.content_type, one.pieces, one.arrivals_s, one.began_s, latency_s)
        )

    def judge(self) -> None:
        """Look at all answers: only complete, well-formed ones count."""
        burst = self.burst
        for one in self._kept:
            expected = Expected(stream=burst.stream, tokens=burst.tokens)
            answer = judged(expected, one.content_type, b"".join(one.pieces))
            if answer.failure or answer.output_tokens != burst.tokens:
                self.errors += 1
                continue
            self.tokens += burst.tokens
            self.latencies_s.append(one.latency_s)
            if burst.stream:
                self._add_times(one)
        self._kept.clear()

    def _add_times(self, one: _Kept) -> None:
        arrivals_s = one.arrivals_s[:-TOKENLESS_EVENTS]
        self.ttfts_s.append(arrivals_s[0] - one.began_s)
        self.gaps_s += [b - a for a, b in pairwise(arrivals_s)]
        if self.burst.tokens > 1:
            self.per_token_s.append((arrivals_s[-1] - arrivals_s[0]) / (self.burst.tokens - 1))

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
    samples = Samples(burst)
    requests = iter([burst.request(prompt) for prompt in burst.prompts])
    began_s = time.perf_counter()
    count = min(burst.streams, len(burst.prompts))
    await asyncio.gather(*(_work(burst, requests, samples) for _ in range(count)))
    elapsed_s = time.perf_counter() - began_s
    samples.judge()
    return samples.figures(elapsed_s)


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
        samples.add(connection, latency_s)
    if connection is not None:
        connection.close()
