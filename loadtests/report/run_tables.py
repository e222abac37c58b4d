"""The tables of a run's page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.answers.ends import sentence_of
from loadtests.report.chart import milliseconds, number, percent
from loadtests.report.page import Cell, Table, cells, latency_of
from loadtests.workload.scenario import Scenario

LATENCIES = (
    ("TTFT, from the intended send", "ttft_intended_ms"),
    ("TTFT, from the actual send", "ttft_ms"),
    ("Between texts (ITL)", "itl_ms"),
    ("Per token (TPOT)", "tpot_ms"),
    ("E2E, from the intended send", "e2e_intended_ms"),
    ("E2E, from the actual send", "e2e_ms"),
)
COLUMNS = ("p50", "p90", "p95", "p99", "max", "mean")
LIMITS = (("TTFT", "ttft_ms"), ("ITL p99", "itl_ms"), ("TPOT", "tpot_ms"), ("E2E", "e2e_ms"))


def group_tables(summary: Mapping[str, Any]) -> tuple[Table, ...]:
    """Attainment and figures of each class, model and tenant."""
    head = ("Class", "Model", "Tenant", "Limits", "Good", "Bound", "Target", "Requests", "Failed")
    promises = tuple(_promise_row(one) for one in summary["groups"])
    attained = Table(
        "Attainment by class, model and tenant; the bound is the one-sided 95 % Wilson lower bound",
        (*head, "Verdict"),
        promises,
        4,
    )
    whose = ("Class", "Model", "Tenant", "Completed/s", "TTFT p50", "TTFT p95", "ITL p99")
    figures = Table(
        "Figures by class, model and tenant; TTFT and E2E from the intended send",
        (*whose, "TPOT p50", "E2E p50", "E2E p95", "Tokens/s"),
        tuple(_figures_row(one) for one in summary["groups"]),
        3,
    )
    return attained, figures


def _promise_row(group: Mapping[str, Any]) -> tuple[Cell, ...]:
    slo, requests = group["slo"], group["requests"]
    limits = ", ".join(f"{name} ≤ {number(slo[key])} ms" for name, key in LIMITS if slo.get(key))
    if not requests:
        verdict = Cell("no requests", "faint")
    elif group.get("broken"):
        verdict = Cell("broken answers", "bad")
    elif group["attainment"] >= slo["target"]:
        verdict = Cell("met", "good")
    else:
        verdict = Cell("missed", "bad")
    failed = requests - group["ok"]
    return cells(
        (
            group["class"],
            group["model"],
            group["tenant"],
            limits or "complete answers",
            percent(group["attainment"]) if requests else "–",
            percent(group["wilson_low"]) if requests else "–",
            percent(slo["target"]),
            f"{requests:,}",
            Cell(f"{failed:,}", "bad" if failed else ""),
            verdict,
        )
    )


def _figures_row(group: Mapping[str, Any]) -> tuple[Cell, ...]:
    ttft, itl = latency_of(group, "ttft_intended_ms"), latency_of(group, "itl_ms")
    tpot, e2e = latency_of(group, "tpot_ms"), latency_of(group, "e2e_intended_ms")
    return cells(
        (
            group["class"],
            group["model"],
            group["tenant"],
            number(group["rate_per_s"]),
            milliseconds(ttft["p50"]),
            milliseconds(ttft["p95"]),
            milliseconds(itl["p99"]),
            milliseconds(tpot["p50"]),
            milliseconds(e2e["p50"]),
            milliseconds(e2e["p95"]),
            number(group["output_tokens_per_s"]),
        )
    )


def latency_table(summary: Mapping[str, Any]) -> Table:
    """Percentiles of all classes together."""
    rows = []
    for title, name in LATENCIES:
        found = latency_of(summary, name)
        rows.append(cells((title, *(milliseconds(found[one]) for one in COLUMNS))))
    return Table("Percentiles over all complete answers", ("Latency", *COLUMNS), tuple(rows))


def error_table(summary: Mapping[str, Any]) -> Table | None:
    """The failures and their counts; None without any."""
    if not summary["errors"]:
        return None
    rows, requests = [], summary["requests"]
    statuses = ", ".join(f"{status}: {count:,}" for status, count in summary["statuses"].items())
    for word, count in summary["errors"].items():
        where = [
            f"{one['class']} {one['errors'][word]:,}"
            for one in summary["groups"]
            if word in one["errors"]
        ]
        meaning = sentence_of(word)
        if word == "http" and statuses:
            meaning = f"{meaning} ({statuses})"
        rows.append(
            cells((word, meaning, ", ".join(where), f"{count:,}", percent(count / requests)))
        )
    head = ("Error", "Meaning", "Of the classes", "Requests", "Share")
    return Table("Requests without a complete answer", head, tuple(rows), 3)


def generator_table(scenario: Scenario, summary: Mapping[str, Any]) -> Table:
    """The generator's figures, beside the limits of a valid run."""
    limits, is_open = scenario.validity, scenario.arrivals.kind != "closed"
    rows = []
    for title, key, limit in (
        ("Send lag", "send_lag_ms", limits.max_send_lag_p99_ms if is_open else None),
        ("Lag of the generator’s loop", "loop_lag_ms", limits.max_loop_lag_p99_ms),
    ):
        found = summary[key]
        p99 = found["p99"]
        is_over = limit is not None and p99 is not None and p99 > limit
        rows.append(
            cells(
                (
                    title,
                    milliseconds(found["p50"]),
                    Cell(milliseconds(p99), "bad" if is_over else ""),
                    milliseconds(found["max"]),
                    "none" if limit is None else f"p99 ≤ {milliseconds(limit)}",
                )
            )
        )
    missing = summary.get("never_sent", 0)
    allowed = f"≤ {percent(limits.max_missing_share)}" if is_open else "none"
    rows.append(cells(("Requests never sent", "", "", f"{missing:,}", allowed)))
    rows.append(cells(("Pauses over 150 ms in answers", "", "", f"{summary['stalls']:,}", "none")))
    return Table(
        "The generator, and what a valid run allows",
        ("", "p50", "p99", "max or number", "Limit"),
        tuple(rows),
    )
