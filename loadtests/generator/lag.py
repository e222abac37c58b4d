"""Watches the load generator itself: how late its loop is, and how much of a core it uses.

A busy generator adds to latencies, which looks like the server's fault; `ValidityConfig` says when a run is
invalid.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import gevent

from loadtests.analysis.stats import percentile

TICK_S = 0.01


class LagWatch:
    """A greenlet that wants to wake up every ten milliseconds and notes by how much it is late.

    Args:
        clock: seconds since the run began.
        sink: gets one row a second, as in lag.jsonl.
    """

    def __init__(
        self, clock: Callable[[], float], sink: Callable[[dict[str, Any]], None], worker: int = 0
    ) -> None:
        self._clock = clock
        self._sink = sink
        self._worker = worker

    def run(self) -> None:
        """Until it is killed."""
        while True:
            self._second()

    def _second(self) -> None:
        began_s, cpu_s, late_ms = time.perf_counter(), _cpu_s(), []
        while (now_s := time.perf_counter()) < began_s + 1:
            gevent.sleep(TICK_S)
            late_ms.append(max(0.0, (time.perf_counter() - now_s - TICK_S) * 1000))
        elapsed_s = time.perf_counter() - began_s
        p50, p99 = (percentile(late_ms, share) for share in (50, 99))
        self._sink(
            {
                "t_s": round(self._clock(), 3),
                "worker": self._worker,
                "lag_p50_ms": round(p50, 3),
                "lag_p99_ms": round(p99, 3),
                "lag_max_ms": round(max(late_ms), 3),
                "cpu_share": round((_cpu_s() - cpu_s) / elapsed_s, 3),
            }
        )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
