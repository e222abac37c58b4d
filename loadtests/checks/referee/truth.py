"""The generator against the reference server, which knows when it sent each token."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.analysis.stats import percentile
from loadtests.generator.launch import Finished, run
from loadtests.reference import running
from loadtests.run.record import Record, read_records
from loadtests.workload.scenario import Scenario

WARMUP_S = 2.0
# What a client may be off by: so many milliseconds, or so large a share.
OFF_MS, OFF_SHARE = 1.0, 0.01
STALL_MS = 200.0
FREEZE_S = 2.0


@dataclass(frozen=True)
class Check:
    """One figure, what it should be, and whether it is."""

    name: str
    found: str
    wanted: str
    holds: bool


@contextmanager
def measured(
    rate: float,
    seconds: float,
    tokens: int,
    *,
    stream: bool = True,
    freeze_at_s: float = 0,
    **how: Any,
) -> Iterator[tuple[Finished, list[Record], Any]]:
    """A run at a reference server; what the generator saw, and the server."""
    with running(**how) as server, tempfile.TemporaryDirectory(prefix="referee-") as folder:
        document = {
            "name": "referee",
            "target": {"url": server.url},
            "classes": [
                {
                    "name": "all",
                    "model": "reference",
                    "stream": stream,
                    "input_tokens": 16,
                    "output_tokens": tokens,
                }
            ],
            "arrivals": {"kind": "poisson", "rate_per_s": rate},
            "duration_s": seconds + WARMUP_S,
            "warmup_s": WARMUP_S,
            "drain_s": 15,
        }
        if freeze_at_s:
            # Locust takes about two seconds to start.
            server.freeze(freeze_at_s, FREEZE_S)
        finished = run(Scenario.model_validate(document), Path(folder) / "run")
        yield finished, list(read_records(finished.folder)), server


def check_times(rate: float = 100, seconds: float = 20) -> Iterator[Check]:
    """TTFT and ITL at 100 streams a second, each of fifty tokens."""
    with measured(rate, seconds, 50, ttft_ms=100, itl_ms=20) as (finished, records, server):
        truth = list(server.truth().values())
        ours = {
            "TTFT": [one.ttft_s * 1000 for one in records if one.ttft_s is not None],
            "ITL": [gap for one in records for gap in one.gaps_ms],
        }
        theirs = {
            "TTFT": [one.ttft_s * 1000 for one in truth if one.ttft_s is not None],
            "ITL": [gap * 1000 for one in truth for gap in one.gaps_s],
        }
        for name in ours:
            for percent in (50, 99):
                found = percentile(ours[name], percent)
                true = percentile(theirs[name], percent)
                allowed = max(OFF_MS, OFF_SHARE * true)
                yield Check(
                    f"{name} p{percent} at {rate:g} streams/s",
                    f"{found:.2f} ms",
                    f"{true:.2f} ± {allowed:.2f} ms",
                    abs(found - true) <= allowed,
                )
        yield _valid(f"{rate:g} streams/s", finished)


def check_stalls() -> Iterator[Check]:
    """Every pause of 200 ms is seen."""
    how: dict[str, Any] = {"mode": "stalls", "stall_every": 20, "stall_ms": STALL_MS, "itl_ms": 20}
    with measured(20, 10, 60, ttft_ms=50, **how) as (finished, records, server):
        limit_ms = 0.75 * STALL_MS
        seen = sum(gap > limit_ms for one in records for gap in one.gaps_ms)
        true = sum(gap * 1000 > limit_ms for one in server.truth().values() for gap in one.gaps_s)
        yield Check("stalls of 200 ms", f"{seen} seen", f"{true} made", seen == true > 0)
        yield _valid("stalls", finished)


def check_freeze() -> Iterator[Check]:
    """A server that stands still for two seconds shows in every request that it made wait."""
    with measured(100, 10, 1, freeze_at_s=7.0, ttft_ms=20) as (finished, records, server):
        waits_s = [one.ttft_intended_s for one in records if one.ttft_intended_s is not None]
        longest = max(waits_s)
        yield Check(
            "server frozen for 2 s: longest TTFT from the intended send",
            f"{longest:.2f} s",
            f"{FREEZE_S:g} s",
            abs(longest - FREEZE_S) < 0.15,
        )
        # Poisson arrivals during the freeze wait for what is left of it: half of it on average.
        caught = [one for one in waits_s if one > 0.1]
        expected = 100 * (FREEZE_S - 0.1)
        yield Check(
            "requests that waited",
            str(len(caught)),
            f"about {expected:.0f}",
            abs(len(caught) - expected) < 4 * expected**0.5,
        )
        del server
        yield _valid("freeze", finished)


def check_speed() -> Iterator[Check]:
    """One generator process at what it must be able to do."""
    for name, rate, tokens, stream in (
        ("300 requests/s, not streamed", 300, 20, False),
        ("400 streams/s of 50 tokens, 20,000 events/s", 400, 50, True),
    ):
        with measured(rate, 10, tokens, stream=stream, ttft_ms=20, itl_ms=10) as (
            finished,
            records,
            _,
        ):
            summary = finished.summary
            lag_ms = summary["loop_lag_ms"]["p99"]
            failed = sum(not one.is_ok for one in records)
            yield Check(f"{name}: lag p99", f"{lag_ms:.2f} ms", "below 10 ms", lag_ms < 10)
            yield Check(f"{name}: failed", str(failed), "0 of " + str(len(records)), failed == 0)
            yield _valid(name, finished)


def _valid(name: str, finished: Finished) -> Check:
    reasons = finished.summary["invalid_because"]
    return Check(f"{name}: the run", "; ".join(reasons) or "valid", "valid", not reasons)


CHECKS = {
    "times": check_times,
    "stalls": check_stalls,
    "freeze": check_freeze,
    "speed": check_speed,
}
