"""`make bench ARGS=idle`: the memory that a waiting stream costs a gateway process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil

from loadtests.analysis.stats import percentile
from loadtests.bench import output
from loadtests.bench.bars import IDLE_BARS
from loadtests.bench.null.engine import EXTRA_EVENTS
from loadtests.bench.null.measure import WARM_UP_REQUESTS, Site, run, site
from loadtests.bench.null.rounds import conclude
from loadtests.bench.raw_http import Connection
from loadtests.processes.child import raise_open_files_limit, resident_bytes

# Few, so that no freed memory of many streams lies ready for those that are measured.
WARM_UP_STREAMS = 8
# Opened at once, these would measure the length of the listener's queue.
OPENING_TOGETHER = 50
ROWS = (
    ("gateway before", "before_mib", "MiB"),
    ("gateway with the streams", "with_streams_mib", "MiB"),
    ("memory per stream", "kib_per_stream", "KiB"),
    ("gateway after they have ended", "after_mib", "MiB"),
    ("memory per stream, a second time", "again_kib_per_stream", "KiB"),
    ("gateway's share of a core meanwhile", "gateway_cores", ""),
    ("time to the first chunk while they open, p99", "first_p99_ms", "ms"),
    ("errors", "errors", ""),
)


@dataclass(frozen=True)
class IdlePlan:
    """Number of streams, duration, and interval of chunks."""

    streams: int = 1000
    hold_s: float = 10.0
    interval_s: float = 2.0

    @property
    def chunks(self) -> int:
        """Chunks of one stream that outlasts opening all of them and the hold."""
        return int((self.hold_s + 5) / self.interval_s) + 1


def run_mode(plan: IdlePlan, rounds: int, *, strict: bool) -> int:
    """Measure, print, write; the exit code."""
    raise_open_files_limit(4 * plan.streams + 256)
    progress = output.Progress(rounds)
    results = []
    for index in range(rounds):
        progress.begin(f"round {index + 1} of {rounds}: {plan.streams} streams, twice")
        with site(1000 * plan.interval_s) as place:
            results.append(run(measure(place, plan)))
        progress.done(f"{results[-1]['kib_per_stream']:.1f} KiB per stream")
    return conclude(
        "idle",
        f"{plan.streams} idle streams, keys on",
        ROWS,
        plan,
        results,
        sum(found["errors"] for found in results),
        IDLE_BARS,
        strict=strict,
    )


async def measure(place: Site, plan: IdlePlan) -> dict[str, float]:
    """Memory of the gateway before, with and after the streams."""
    await _warm_up(place)
    process = psutil.Process(place.gateway.pid)
    before = resident_bytes([process])
    first = await _hold(place, plan, process)
    await asyncio.sleep(1)
    after = resident_bytes([process])
    second = await _hold(place, plan, process)
    return {
        "before_mib": before / 2**20,
        "with_streams_mib": first["resident"] / 2**20,
        "after_mib": after / 2**20,
        "kib_per_stream": (first["resident"] - before) / plan.streams / 1024,
        # Against the same beginning: what stays behind counts.
        "again_kib_per_stream": (second["resident"] - before) / plan.streams / 1024,
        "gateway_cores": first["cores"],
        "first_p99_ms": first["first_p99_ms"],
        "errors": first["errors"] + second["errors"],
    }


async def _warm_up(place: Site) -> None:
    connections = [await Connection.open(place.gateway_address) for _ in range(WARM_UP_STREAMS)]
    for _ in range(WARM_UP_REQUESTS // WARM_UP_STREAMS):
        await asyncio.gather(*(each.start(place.through()) for each in connections))
    stream = place.through(stream=True, max_tokens=1)
    await asyncio.gather(*(connection.start(stream) for connection in connections))
    for connection in connections:
        connection.close()


async def _hold(place: Site, plan: IdlePlan, process: psutil.Process) -> dict[str, float]:
    """Open all streams, look while they wait, let them end."""
    request = place.through(stream=True, max_tokens=plan.chunks)
    connections: list[Connection] = []
    done: list[asyncio.Future[float]] = []
    first_ms: list[float] = []
    while len(connections) < plan.streams:
        count = min(OPENING_TOGETHER, plan.streams - len(connections))
        opened = [await Connection.open(place.gateway_address) for _ in range(count)]
        done += [connection.start(request) for connection in opened]
        first_ms += [1000 * await connection.first for connection in opened]
        connections += opened
    cpu, began_s = process.cpu_times(), time.perf_counter()
    resident = 0
    while time.perf_counter() - began_s < plan.hold_s:
        await asyncio.sleep(plan.interval_s / 4)
        resident = max(resident, resident_bytes([process]))
    used, held_s = process.cpu_times(), time.perf_counter() - began_s
    ended = sum(future.done() for future in done)
    await asyncio.gather(*done)
    lost = plan.streams * (plan.chunks + EXTRA_EVENTS) - sum(each.events for each in connections)
    errors = ended + abs(lost) + sum(connection.errors for connection in connections)
    for connection in connections:
        connection.close()
    return {
        "resident": resident,
        "cores": (used.user + used.system - cpu.user - cpu.system) / held_s,
        "first_p99_ms": percentile(first_ms, 99),
        "errors": errors,
    }
