"""The figures of a run, and whether it is valid: records in, one dictionary out. Pure.

Requests whose intended send lies in the warm-up count nowhere, except that throughput is what the server
completed in the counted time, whenever it was sent: so neither edge of that time biases it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loadtests.analysis.columns import Columns, Group, Ints, Mask
from loadtests.analysis.stats import LittlesLaw, occupancy, spread, wilson_lower
from loadtests.answers.ends import broken_in
from loadtests.run.record import Record
from loadtests.workload.scenario import Scenario, SloConfig

# Between two pieces of text, a reader notices this as a stop.
STALL_MS = 150.0
# A generator that ended this much before the planned end was stopped.
STOPPED_S = 2.0


def slos_of(scenario: Scenario) -> dict[Group, SloConfig]:
    """The SLO of each group."""
    return {(one.name, one.model, one.tenant): one.slo for one in scenario.classes}


def counted_span(scenario: Scenario, lag_rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """From the end of the warm-up to the end of sending, which is earlier if the run was stopped."""
    ended_s = max((row["t_s"] for row in lag_rows), default=scenario.duration_s)
    is_stopped = ended_s < scenario.duration_s - STOPPED_S
    until_s = ended_s if is_stopped else scenario.duration_s
    return scenario.warmup_s, max(until_s, scenario.warmup_s + 1e-9)


def summarise(
    scenario: Scenario,
    records: Iterable[Record],
    lag_rows: Sequence[Mapping[str, Any]],
    metrics_rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """summary.json of a run."""
    return summarise_columns(scenario, Columns.of(records), lag_rows, metrics_rows)


def summarise_columns(
    scenario: Scenario,
    columns: Columns,
    lag_rows: Sequence[Mapping[str, Any]],
    metrics_rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The same, of records that have been read."""
    span = counted_span(scenario, lag_rows)
    good = columns.good(slos_of(scenario))
    whole = _figures(columns, good, span)
    lag = loop_lag([row for row in lag_rows if row["t_s"] >= span[0]])
    counted = columns.where(columns.intended_s >= span[0])
    send_lag = spread((counted.sent_s - counted.intended_s) * 1000) or {}
    missing = _missing(columns) if scenario.arrivals.kind != "closed" else 0
    reasons = _reasons(scenario, whole, send_lag, lag, missing, len(columns))
    is_planned = scenario.arrivals.kind != "closed" and scenario.max_requests is None
    if is_planned and span[1] < scenario.duration_s:
        reasons.append(
            f"the run was stopped after {span[1]:.0f} s of {scenario.duration_s:g} s:"
            " what was planned after that was never sent"
        )
    return {
        "comptoir_load": 1,
        "scenario": scenario.name,
        "valid": not reasons,
        "invalid_because": reasons,
        "duration_s": span[1] - span[0],
        **whole,
        "never_sent": missing,
        "send_lag_ms": {name: send_lag.get(name) for name in ("p50", "p99", "max")},
        "loop_lag_ms": lag,
        "stalls": int((counted.gaps_ms > STALL_MS).sum()),
        "scrapes": len(metrics_rows),
        "groups": _groups(scenario, columns, good, span),
    }


# ---- figures of all requests, or of a group ----------------------------------------------------------


def _figures(columns: Columns, good: Mask, span: tuple[float, float]) -> dict[str, Any]:
    since_s, until_s = span
    span_s = until_s - since_s
    is_counted = columns.intended_s >= since_s
    counted, counted_good = columns.where(is_counted), good[is_counted]
    answered = counted.where(counted.ok)
    is_ended = (columns.end_s >= since_s) & (columns.end_s < until_s)
    requests, kept, errors = len(counted), int(counted_good.sum()), _errors(counted)
    has_usage = answered.prompt_tokens >= 0
    is_short = has_usage & (answered.output_tokens < answered.asked_output)
    law = _law(columns, counted, span)
    return {
        "requests": requests,
        "ok": len(answered),
        "errors": errors,
        "broken": broken_in(errors),
        "without_usage": int((~has_usage).sum()),
        "ended_early": int(is_short.sum()),
        "statuses": _statuses(counted),
        "rate_per_s": float((columns.ok & is_ended).sum() / span_s),
        "offered_per_s": requests / span_s,
        "prompt_tokens": _tokens(answered.prompt_tokens),
        "output_tokens": _tokens(answered.output_tokens),
        "cached_tokens": _tokens(answered.cached_tokens),
        "output_tokens_per_s": _tokens_per_s(columns, span),
        "good": kept,
        "goodput_share": kept / requests if requests else 0.0,
        "good_per_s": float((good & is_ended).sum() / span_s),
        "in_flight_mean": law.in_flight,
        "littles_law": {
            "in_flight": law.in_flight,
            "rate_x_e2e": law.rate_x_e2e,
            "off_by_share": law.off_by_share,
        },
        "latency": {name: spread(values) for name, values in answered.latencies().items()},
    }


def _groups(
    scenario: Scenario, columns: Columns, good: Mask, span: tuple[float, float]
) -> list[dict[str, Any]]:
    slos = slos_of(scenario)
    found = []
    for name in dict.fromkeys([*slos, *columns.groups]):
        place = columns.groups.index(name) if name in columns.groups else -1
        mine = columns.group == place
        figures = _figures(columns.where(mine), good[mine], span)
        slo = slos.get(name, SloConfig())
        requests = figures["requests"]
        found.append(
            {
                **dict(zip(("class", "model", "tenant"), name, strict=True)),
                "slo": slo.model_dump(exclude_none=True),
                "attainment": figures["goodput_share"],
                "wilson_low": wilson_lower(figures["good"], requests),
                **figures,
            }
        )
    return found


def _errors(counted: Columns) -> dict[str, int]:
    counts = np.bincount(counted.error, minlength=len(counted.words)).tolist()
    pairs = zip(counted.words[1:], counts[1:], strict=True)
    return {word: count for word, count in sorted(pairs, key=lambda pair: -pair[1]) if count}


def _statuses(counted: Columns) -> dict[str, int]:
    """HTTP statuses of failed requests."""
    values, counts = np.unique(counted.status[~counted.ok], return_counts=True)
    pairs = zip(values.tolist(), counts.tolist(), strict=True)
    return {str(status): count for status, count in pairs if status}


def _tokens(values: Ints) -> int:
    return int(np.maximum(values, 0).sum())


def _tokens_per_s(columns: Columns, span: tuple[float, float]) -> float:
    """Tokens generated in the counted time: those of an answer spread evenly over its duration."""
    since_s, until_s = span
    begun = np.where(np.isnan(columns.first_s), columns.sent_s, columns.first_s)
    inside = np.minimum(columns.end_s, until_s) - np.maximum(begun, since_s)
    took = np.maximum(columns.end_s - begun, 1e-6)
    # An answer that came all at once came in the counted time or not.
    at_once = (columns.end_s >= since_s) & (columns.end_s < until_s)
    share = np.where(took > 1e-6, np.clip(inside / took, 0, 1), at_once)
    tokens = np.maximum(columns.output_tokens, 0) * columns.ok
    return float((tokens * share).sum() / (until_s - since_s))


def _law(columns: Columns, counted: Columns, span: tuple[float, float]) -> LittlesLaw:
    if not len(columns):
        return LittlesLaw(0.0, 0.0)
    measured = occupancy(columns.intended_s, columns.end_s, np.array(span))
    stays_s = counted.end_s - counted.intended_s
    return LittlesLaw(float(measured[0]), float(stays_s.sum() / (span[1] - span[0])))


# ---- is it to be believed ----------------------------------------------------------------------------


def loop_lag(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """p50, p99 and max over all seconds and processes, from each one's quantiles."""
    if not rows:
        return {"p50": None, "p99": None, "max": None}
    # Each second's distribution is drawn through what is known of it, and all are put together.
    known, places = (0.0, 0.5, 0.99, 1.0), (np.arange(400) + 0.5) / 400
    together = np.concatenate(
        [
            np.interp(places, known, (0, row["lag_p50_ms"], row["lag_p99_ms"], row["lag_max_ms"]))
            for row in rows
        ]
    )
    p50, p99 = np.percentile(together, (50, 99)).tolist()
    return {"p50": p50, "p99": p99, "max": float(max(row["lag_max_ms"] for row in rows))}


def _missing(columns: Columns) -> int:
    """Conversations of the plan that never began: their numbers are missing among those that did.

    Later turns depend on answers, and are no sign of a generator's fault.
    """
    first = columns.turn == 0
    has_conversations = bool((columns.conversation[first] >= 0).all())
    numbers = np.unique((columns.conversation if has_conversations else columns.number)[first])
    return int(numbers[-1] - numbers[0] + 1 - numbers.size) if numbers.size else 0


def _reasons(
    scenario: Scenario,
    whole: Mapping[str, Any],
    send_lag: Mapping[str, float],
    lag: Mapping[str, float | None],
    missing: int,
    sent: int,
) -> list[str]:
    limits, found = scenario.validity, []
    if not whole["requests"]:
        found.append(f"no request was sent after the warm-up of {scenario.warmup_s:g} s")
    late_ms, loop_ms = send_lag.get("p99", 0.0), lag["p99"] or 0.0
    if scenario.arrivals.kind != "closed" and late_ms > limits.max_send_lag_p99_ms:
        found.append(
            f"requests were sent late: p99 of the send lag is {late_ms:.1f} ms, the limit"
            f" (validity.max_send_lag_p99_ms) is {limits.max_send_lag_p99_ms:g} ms;"
            " use more generator processes or another machine"
        )
    if loop_ms > limits.max_loop_lag_p99_ms:
        found.append(
            f"the generator was too busy to time answers: p99 of its loop's lag is {loop_ms:.1f} ms,"
            f" the limit (validity.max_loop_lag_p99_ms) is {limits.max_loop_lag_p99_ms:g} ms;"
            " use more generator processes or another machine"
        )
    if missing and missing / (missing + sent) > limits.max_missing_share:
        found.append(
            f"{missing} of the plan's {missing + sent} requests were never sent"
            f" (validity.max_missing_share allows {limits.max_missing_share:.1%})"
        )
    return found
