"""The page of one run, and its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from loadtests.analysis.columns import Columns
from loadtests.answers.ends import BROKEN, remarks, sentence_of
from loadtests.report.chart import milliseconds, number, percent
from loadtests.report.page import (
    Key,
    Page,
    Section,
    Verdict,
    latency_of,
    or_dash,
    without_user,
    write,
)
from loadtests.report.picture import draw
from loadtests.report.run_charts import RunCharts, charts_of
from loadtests.report.run_tables import (
    error_table,
    generator_table,
    group_tables,
    latency_table,
)
from loadtests.run.folder import read_rows
from loadtests.run.record import LAG, METRICS, RECORDS, REPORT, SCENARIO, SUMMARY, read_records
from loadtests.workload.scenario import Scenario
from serving.errors import ConfigError

BROKEN_ANSWERS = "BROKEN ANSWERS: the server said 200 to requests that it did not answer"
INVALID = "INVALID: these figures say nothing about the server"
# Little's law holds within this on a run whose load was steady: docs/load-testing.md.
LAW_SHARE = 0.05


def build_run(folder: Path) -> Path:
    """Implements `loadtests.report.build`."""
    for name in (SCENARIO, RECORDS):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: holds no run: {name} is missing", param=str(folder))
    scenario = Scenario.load(folder / SCENARIO)
    columns = Columns.of(read_records(folder))
    lag_rows, metrics_rows = read_rows(folder, LAG), read_rows(folder, METRICS)
    summary = _summary(folder, scenario, columns, lag_rows, metrics_rows)
    charts = charts_of(scenario, columns, lag_rows, metrics_rows)
    pictures = tuple(_pictures(folder, scenario, summary, charts))
    document = without_user((folder / SCENARIO).read_text(encoding="utf-8"))
    page = page_of(scenario, summary, charts, document, pictures, has_lag=bool(lag_rows))
    return write(page, folder / REPORT)


def _summary(
    folder: Path, scenario: Scenario, columns: Columns, lag_rows: Any, metrics_rows: Any
) -> dict[str, Any]:
    if (folder / SUMMARY).is_file():
        found: dict[str, Any] = orjson.loads((folder / SUMMARY).read_bytes())
        return found
    # Not above: `loadtests.analysis.summary` builds on this package.
    from loadtests.analysis.summary import summarise_columns

    return summarise_columns(scenario, columns, lag_rows, metrics_rows)


def _pictures(
    folder: Path, scenario: Scenario, summary: Mapping[str, Any], charts: RunCharts
) -> Iterator[tuple[Path, str]]:
    title = scenario.name + ("" if summary["valid"] else "  ·  INVALID")
    note = (
        f"{summary['requests']:,} requests counted, {percent(summary['goodput_share'])} of them good,"
        f" {number(summary['rate_per_s'])} completed per second"
    )
    for name, these, columns, height in (
        ("latency.png", charts.latency, len(charts.latency), 3.6),
        ("timeline.png", charts.timeline, 1, 1.9),
    ):
        path = folder / name
        if these:
            alt = " ".join(f"{one.title}: {one.alt}" for one in these)
            draw(these, path, title=title, note=note, columns=columns, row_height=height)
            yield path, alt
        else:
            # An older report's picture would lie beside this one.
            path.unlink(missing_ok=True)


def page_of(
    scenario: Scenario,
    summary: Mapping[str, Any],
    charts: RunCharts,
    document: str,
    pictures: tuple[tuple[Path, str], ...] = (),
    *,
    has_lag: bool = True,
) -> Page:
    """Everything on the page. Pure."""
    target = without_user(scenario.target.url)
    arrivals = scenario.arrivals.kind
    return Page(
        kind="Comptoir load test",
        title=scenario.name,
        description=scenario.description,
        facts=(
            target,
            f"{arrivals} arrivals, {'closed' if arrivals == 'closed' else 'open'} loop",
            f"{number(summary['duration_s'])} s counted after {scenario.warmup_s:g} s of warm-up",
            f"seed {scenario.seed}",
        ),
        verdict=verdict_of(summary),
        keys=tuple(_keys(summary)),
        sections=tuple(_sections(scenario, summary, charts, document, has_lag=has_lag)),
        pictures=pictures,
    )


def verdict_of(summary: Mapping[str, Any]) -> Verdict:
    """Whether the run is valid, and then whether the SLOs were met."""
    if not summary["valid"]:
        return Verdict("bad", INVALID, tuple(summary["invalid_because"]))
    if summary.get("broken"):
        counts = (
            f"{summary['errors'][word]:,} × {word}: {sentence_of(word)}"
            for word in summary["errors"]
            if word in BROKEN
        )
        return Verdict("bad", BROKEN_ANSWERS, tuple(counts))
    missed = [
        f"{one['class']} ({one['model']}, tenant {one['tenant']}): {percent(one['attainment'])} of requests"
        f" good, the target is {percent(one['slo']['target'])}"
        for one in summary["groups"]
        if one["requests"] and one["attainment"] < one["slo"]["target"]
    ]
    if missed:
        return Verdict("warn", "Valid run: the server missed its objectives", tuple(missed))
    return Verdict("good", "Valid run: every objective was met")


def _keys(summary: Mapping[str, Any]) -> Iterator[Key]:
    ttft, e2e = (latency_of(summary, name) for name in ("ttft_intended_ms", "e2e_intended_ms"))
    tpot, requests, ok = latency_of(summary, "tpot_ms"), summary["requests"], summary["ok"]
    yield Key(
        "Good requests",
        percent(summary["goodput_share"]) if requests else "–",
        f"{number(summary['good_per_s'])} per second; failures count as bad",
    )
    yield Key(
        "Completed",
        f"{number(summary['rate_per_s'])}/s",
        f"offered {number(summary['offered_per_s'])}/s",
    )
    yield Key("TTFT p95", milliseconds(ttft["p95"]), f"p50 {milliseconds(ttft['p50'])}")
    yield Key("E2E p95", milliseconds(e2e["p95"]), f"p50 {milliseconds(e2e['p50'])}")
    yield Key("TPOT p50", milliseconds(tpot["p50"]), f"p95 {milliseconds(tpot['p95'])}")
    yield Key(
        "Output tokens",
        f"{number(summary['output_tokens_per_s'])}/s",
        f"{summary['output_tokens']:,} in all",
    )
    if summary["prompt_tokens"]:
        cached = percent(summary["cached_tokens"] / summary["prompt_tokens"])
        yield Key("Prompt tokens cached", cached, f"of {summary['prompt_tokens']:,}")
    failed = requests - ok
    yield Key(
        "Failed",
        f"{failed:,}",
        f"of {requests:,} requests",
        "bad" if failed else "",
    )


def _sections(
    scenario: Scenario,
    summary: Mapping[str, Any],
    charts: RunCharts,
    document: str,
    *,
    has_lag: bool,
) -> Iterator[Section]:
    yield Section(
        "objectives",
        "Objectives",
        "A request is good when it was answered in full and kept every limit of its class, counted from"
        " its intended send.",
        tables=group_tables(summary),
    )
    yield Section(
        "latency",
        "Latency",
        "Counted from the intended send, a request also waits for a generator that is late: where both lines"
        " part, the generator was at fault. Only complete answers are drawn.",
        charts.latency,
        (latency_table(summary),),
        empty="" if charts.latency else "No request was answered in full.",
    )
    if charts.timeline:
        has_server = any(one.key.startswith("server-") for one in charts.timeline)
        yield Section(
            "timeline",
            "Over time",
            "All plots share one axis of time and zoom together."
            + ("" if has_server else " No metrics of the server were scraped."),
            charts.timeline,
            layout="stacked",
        )
    errors = error_table(summary)
    yield Section(
        "errors",
        "Errors",
        " ".join(f"{remark[0].upper()}{remark[1:]}." for remark in remarks(summary)),
        tables=(errors,) if errors else (),
        empty="" if errors else "None among the requests that count.",
    )
    yield Section(
        "generator",
        "The generator's health",
        _law(summary) + ("" if has_lag else " The generator left no figures of its own lag."),
        charts.generator,
        (generator_table(scenario, summary),),
    )
    yield Section("scenario", "Scenario", code=document)


def _law(summary: Mapping[str, Any]) -> str:
    law = summary["littles_law"]
    off = law["off_by_share"]
    if off is None:
        return "Nothing was in flight."
    is_kept = off <= LAW_SHARE
    return (
        f"Little’s law: {number(law['in_flight'])} requests were in flight on average, and arrival rate times"
        f" time in the system is {number(law['rate_x_e2e'])}; they are"
        f" {or_dash(off, percent)} apart, "
        + ("as on a steady run." if is_kept else "so the load was not steady in the counted time.")
    )
