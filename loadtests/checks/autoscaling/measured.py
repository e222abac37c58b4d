"""A real run in the simulator's terms: what happened, as an `Outcome`, and what a replica can do. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from loadtests.run.record import Record
from loadtests.simulation.autoscaling.replicas import Outcome, ReplicaModel, Request
from serving.errors import ComptoirError

Row = Mapping[str, Any]
Counts = list[tuple[float, int]]

REPLICAS, WANTED = "comptoir_replicas", "comptoir_replicas_wanted"
BY_STATE, START_S = "comptoir_replicas_by_state", "comptoir_engine_start_seconds"
# Serve lists a replica that has ended for a moment longer.
ENDED = 'state="STOPPED"'
# Fewer do not say how fast a replica is.
MIN_REQUESTS = 5


def outcome_of(records: Iterable[Record], rows: Sequence[Row], duration_s: float) -> Outcome:
    """The events from the first send to `duration_s`, in the simulator's terms.

    Raises:
        ComptoirError: the gateway's metrics were not scraped.
    """
    rows = [row for row in rows if 0 <= row["t_s"] <= duration_s]
    there = [(row["t_s"], sum(_values(row, BY_STATE, without=ENDED))) for row in rows]
    targets, running = changes(rows, WANTED), changes(rows, REPLICAS)
    if not targets or not running:
        raise ComptoirError("the run has no metrics of replicas: was its gateway scraped?")
    return Outcome(
        requests=[
            Request(one.intended_s, one.asked_output, ttft_s(one))
            for one in sorted(records, key=lambda one: one.intended_s)
        ],
        targets=targets,
        running=running,
        replica_s=integral(there, duration_s),
    )


def ttft_s(record: Record) -> float:
    """To the first token; never, where a request failed."""
    found = record.ttft_intended_s if record.is_ok else None
    return math.inf if found is None else found


def changes(rows: Iterable[Row], name: str) -> Counts:
    """The changes of a count: times and values; the first entry holds from the beginning."""
    found: Counts = []
    for row in rows:
        values = list(_values(row, name))
        if values and (not found or found[-1][1] != sum(values)):
            found.append((row["t_s"] if found else 0.0, round(sum(values))))
    return found


def integral(points: Sequence[tuple[float, float]], until_s: float) -> float:
    """Of a count over time, each value until the next, the first from the beginning."""
    if not points:
        return 0.0
    edges = [(0.0, points[0][1]), *points[1:], (until_s, 0.0)]
    return sum(value * (after_s - at_s) for (at_s, value), (after_s, _) in pairwise(edges))


def _values(row: Row, name: str, without: str = "\n") -> Iterator[float]:
    for series, value in row["values"].items():
        if series.partition("{")[0] == name and without not in series:
            yield float(value)


# ---- what a replica can do -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """Seconds before a first token, and between two tokens in a batch of one and for each further request."""

    prefill_s: float
    itl_s: float
    itl_per_request_s: float


def pace(records: Iterable[Record]) -> Pace:
    """From requests that did not wait for each other: a line through their gaps over their company.

    Raises:
        ComptoirError: there are too few of them.
    """
    done = [one for one in records if one.is_ok and one.tpot_s is not None]
    if len(done) < MIN_REQUESTS:
        raise ComptoirError(
            f"{len(done)} requests before the step say too little of a replica; there must be {MIN_REQUESTS}"
        )
    batches = [_company(one, done) for one in done]
    gaps_s = [one.tpot_s or 0.0 for one in done]
    slope, start = np.polyfit(batches, gaps_s, 1) if np.ptp(batches) > 0 else (0.0, 0.0)
    if slope <= 0:
        slope, start = 0.0, float(np.mean(gaps_s))
    firsts_s = [
        ttft_s(one) - (start + slope * batch) for one, batch in zip(done, batches, strict=True)
    ]
    return Pace(max(0.0, median(firsts_s)), float(start), float(slope))


def _company(one: Record, every: Sequence[Record]) -> float:
    """Requests that got tokens while this one did, itself included: a mean over that time."""
    first_s, last_s = _generating(one)
    spans = (_generating(other) for other in every)
    shared_s = sum(max(0.0, min(last_s, end) - max(first_s, begin)) for begin, end in spans)
    return shared_s / (last_s - first_s)


def _generating(record: Record) -> tuple[float, float]:
    return record.first_s or 0.0, record.end_s


def start_times_s(outcome: Outcome) -> list[float]:
    """Seconds from the decision to each replica that began to serve."""
    asked = _ups(outcome.targets)
    return [ready - at for at, ready in zip(asked, _ups(outcome.running), strict=False)]


def _ups(counts: Counts) -> list[float]:
    """The moment of each one more."""
    return [at_s for (_, before), (at_s, after) in pairwise(counts) for _ in range(after - before)]


def reported_start_s(rows: Iterable[Row]) -> float | None:
    """Seconds that the first replica says its start took; that is what the policy plans with."""
    for row in rows:
        values = list(_values(row, START_S))
        if values:
            return values[0]
    return None


def replica_model(
    records: Sequence[Record],
    rows: Sequence[Row],
    outcome: Outcome,
    *,
    slots: int,
    gateway_limit: int,
    step_s: float,
) -> ReplicaModel:
    """The simulated replica that stands for the real one.

    Speeds are taken from before the step, when nothing had to wait; starts from the run itself.

    Raises:
        ComptoirError: the run says too little: no replica was started, or too few requests came.
    """
    starts_s = start_times_s(outcome)
    if not starts_s:
        raise ComptoirError(
            "no replica began to serve in the run: the step was too low or too short"
        )
    calm = pace([one for one in records if one.end_s < step_s])
    return replace(
        ReplicaModel(),
        slots=slots,
        gateway_limit=gateway_limit,
        itl_s=calm.itl_s,
        itl_per_request_s=calm.itl_per_request_s,
        prefill_s=calm.prefill_s,
        mean_tokens=float(records[0].asked_output),
        token_spread=0.0,
        cold_start_s=median(starts_s),
        reported_start_s=reported_start_s(rows),
    )
