"""What is good and what is in flight, request by request: what the arrays of `columns` must come to."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.analysis.stats import percentile
from loadtests.run.record import Record
from loadtests.workload.scenario import SloConfig


def is_good(record: Record, slo: SloConfig) -> bool:
    """Whether a request kept every promise, counted from its intended send; a failure never does."""
    if not record.is_ok:
        return False
    ttft_s, tpot_s = record.ttft_intended_s, record.tpot_s
    kept = slo.e2e_ms is None or record.e2e_intended_s * 1000 <= slo.e2e_ms
    if slo.ttft_ms is not None:
        kept = kept and ttft_s is not None and ttft_s * 1000 <= slo.ttft_ms
    if slo.tpot_ms is not None and tpot_s is not None:
        kept = kept and tpot_s * 1000 <= slo.tpot_ms
    if slo.itl_ms is not None and record.gaps_ms:
        kept = kept and percentile(record.gaps_ms, 99) <= slo.itl_ms
    return kept


def in_flight(records: Sequence[Record], since_s: float, until_s: float) -> float:
    """Mean number of requests between intended send and end, over a time."""
    inside = sum(
        max(0.0, min(one.end_s, until_s) - max(one.intended_s, since_s)) for one in records
    )
    return inside / (until_s - since_s)
