"""The good client beside the attack: another tenant's streams, timed; a process of its own.

Run as a process: `python -m loadtests.hostile.beside ADDRESS MODEL`, with the key on stdin. Each
further line ends a period and is answered with its figures as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import uvloop

from loadtests.analysis.stats import percentile
from loadtests.answers.dialects import judged
from loadtests.answers.reading import Expected
from loadtests.bench.raw_http import TimedConnection, request_bytes

STREAMS = 4
TOKENS = 6
PAUSE_S = 0.02
TICK_S = 0.01
TIMEOUT_S = 30.0


@dataclass
class Period:
    """What was seen since the last line."""

    ttft_ms: list[float] = field(default_factory=list)
    worst_gap_ms: float = 0.0
    failed: int = 0
    # How late this process itself was: on a machine without a core to spare, its figures say nothing.
    worst_lag_ms: float = 0.0

    def figures(self) -> dict[str, Any]:
        """As the other end reads them."""
        return {
            "requests": len(self.ttft_ms) + self.failed,
            "ttfts_ms": [round(one, 2) for one in self.ttft_ms],
            "failed": self.failed,
            "ttft_p50_ms": percentile(self.ttft_ms, 50) if self.ttft_ms else float("nan"),
            "ttft_p99_ms": percentile(self.ttft_ms, 99) if self.ttft_ms else float("nan"),
            "worst_gap_ms": self.worst_gap_ms,
            "worst_lag_ms": self.worst_lag_ms,
        }


class GoodClient:
    """Streams one answer after the other on each of a few connections."""

    def __init__(self, address: str, model: str, key: str) -> None:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Bonjour"}],
            "max_tokens": TOKENS,
            "stream": True,
        }
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._address = address
        self._request = request_bytes(address, headers, body)
        self.period = Period()

    async def run(self) -> None:
        """Go on until cancelled."""
        await asyncio.gather(self._watch_itself(), *(self._repeat() for _ in range(STREAMS)))

    async def _watch_itself(self) -> None:
        while True:
            began_s = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late_s = time.perf_counter() - began_s - TICK_S
            self.period.worst_lag_ms = max(self.period.worst_lag_ms, 1000 * late_s)

    async def _repeat(self) -> None:
        connection: TimedConnection | None = None
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    if connection is None or not connection.is_open:
                        connection = await TimedConnection.open(self._address)
                    errors = connection.errors
                    await connection.start(self._request)
                    self._note(connection, connection.errors > errors)
            except (OSError, TimeoutError):
                self.period.failed += 1
                connection = None
            await asyncio.sleep(PAUSE_S)

    def _note(self, connection: TimedConnection, has_failed: bool) -> None:
        arrivals = connection.arrivals_s
        answer = b"".join(connection.pieces)
        if has_failed or judged(Expected(stream=True), connection.content_type, answer).failure:
            self.period.failed += 1
            return
        self.period.ttft_ms.append(1000 * (arrivals[0] - connection.began_s))
        gap_s = max((b - a for a, b in pairwise(arrivals)), default=0.0)
        self.period.worst_gap_ms = max(self.period.worst_gap_ms, 1000 * gap_s)


async def main(address: str, model: str) -> None:
    """Talk with whoever has started this."""
    loop = asyncio.get_running_loop()
    key = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
    client = GoodClient(address, model, key)
    print("ready", flush=True)
    running = asyncio.ensure_future(client.run())
    # Otherwise a mistake in the client would look like a site that answers nothing.
    running.add_done_callback(lambda task: task.cancelled() or loop.stop())
    while await loop.run_in_executor(None, sys.stdin.readline):
        period, client.period = client.period, Period()
        print(json.dumps(period.figures() | {"at_s": time.time()}), flush=True)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:3]))
