"""`make bench ARGS=null`: measures the gateway alone, several times, and prints medians."""

from __future__ import annotations

from loadtests.bench import output
from loadtests.bench.bars import NULL_BARS
from loadtests.bench.null.measure import NullPlan, measure
from loadtests.bench.null.rounds import conclude

STEPS = 3
ERRORS = ("latency_errors", "request_errors", "stream_errors", "lost_chunks")
ROWS = (
    ("through the gateway, one at a time, p50", "gateway_p50_ms", "ms"),
    ("straight to the null engine, p50", "engine_p50_ms", "ms"),
    ("added latency, p50", "added_p50_ms", "ms"),
    ("added latency, p99", "added_p99_ms", "ms"),
    ("requests, parallel, not streamed", "requests_per_s", "/s"),
    ("requests per CPU second of the gateway", "requests_per_core_s", "/s"),
    ("SSE chunks offered and delivered", "chunks_per_s", "/s"),
    ("SSE chunks per CPU second of the gateway", "chunks_per_core_s", "/s"),
    ("the same, with the streams' beginnings and ends", "whole_chunks_per_core_s", "/s"),
    ("gateway's share of a core at that", "gateway_cores_at_chunks", ""),
    ("SSE chunks in one write of the gateway", "chunks_per_write", ""),
)


def run(plan: NullPlan, rounds: int, *, strict: bool) -> int:
    """Measure, print, write; the exit code."""
    progress = output.Progress(rounds * STEPS)
    results = []
    for number_of_round in range(1, rounds + 1):

        def say(text: str, number_of_round: int = number_of_round) -> None:
            progress.done(f"round {number_of_round} of {rounds}: {text}")

        results.append(measure(plan, say))
    errors = sum(abs(found[name]) for found in results for name in ERRORS)
    return conclude(
        "null", "gateway alone, keys on", ROWS, plan, results, errors, NULL_BARS, strict=strict
    )
