"""The charts of one run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loadtests.analysis.columns import Columns
from loadtests.analysis.stats import Floats
from loadtests.report.chart import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Band,
    Chart,
    Line,
    Mark,
    milliseconds,
    number,
)
from loadtests.report.series import Panel, panels
from loadtests.report.timeline import (
    Timeline,
    cdf_of,
    edges_to,
    lag_by_second,
    timeline_of,
)
from loadtests.workload.scenario import Scenario

SECONDS = "seconds since the run began"


@dataclass(frozen=True, slots=True)
class RunCharts:
    """In the order of the page; any may be empty."""

    latency: tuple[Chart, ...]
    timeline: tuple[Chart, ...]
    generator: tuple[Chart, ...]


def charts_of(
    scenario: Scenario,
    columns: Columns,
    lag_rows: Sequence[Mapping[str, Any]],
    metrics_rows: Sequence[Mapping[str, Any]],
) -> RunCharts:
    """All that there is something to draw for."""
    timeline = timeline_of(columns, scenario.duration_s)
    since_s = scenario.warmup_s
    counted = columns.where((columns.intended_s >= since_s) & columns.ok)
    bands = (Band(0.0, since_s, "warm-up"),) if since_s else ()
    server = panels(metrics_rows, edges_to(float(timeline.edges[-1])))
    return RunCharts(
        latency=tuple(_latency(counted.latencies())),
        timeline=tuple(_timeline(timeline, server, bands)) if len(columns) else (),
        generator=tuple(_generator(scenario, timeline, lag_rows, len(columns))),
    )


# ---- distributions -----------------------------------------------------------------------------------


def _latency(latencies: Mapping[str, Floats]) -> Iterator[Chart]:
    sends = ("from the intended send", False), ("from the actual send", True)
    for key, title, names in (
        ("ttft", "Time to first token", ("ttft_intended_ms", "ttft_ms")),
        ("e2e", "Time to the end of the answer", ("e2e_intended_ms", "e2e_ms")),
    ):
        lines = [
            (word, name, BLUE if not is_dashed else ORANGE, is_dashed)
            for (word, is_dashed), name in zip(sends, names, strict=True)
        ]
        yield from _cdf(key, title, lines, latencies)
    between = [("between texts (ITL)", "itl_ms", GREEN, False)]
    between.append(("per token (TPOT)", "tpot_ms", PURPLE, True))
    yield from _cdf("between", "Between tokens", between, latencies)


def _cdf(
    key: str,
    title: str,
    wanted: Sequence[tuple[str, str, str, bool]],
    latencies: Mapping[str, Floats],
) -> Iterator[Chart]:
    lines, words = [], []
    for word, name, colour, is_dashed in wanted:
        values, percents = cdf_of(latencies[name])
        if values.size:
            # On a logarithmic axis there is no zero.
            shown = np.maximum(values, 0.01)
            lines.append(Line(word, shown, percents, colour, is_dashed))
            p50, p95, p99 = np.interp((50, 95, 99), percents, values).tolist()
            words.append(
                f"{word} p50 {milliseconds(p50)}, p95 {milliseconds(p95)}, p99 {milliseconds(p99)}"
            )
    if not lines:
        return
    ends = [(line.x[0], line.x[-1]) for line in lines]
    low, high = min(one[0] for one in ends), max(one[1] for one in ends)
    yield Chart(
        key=f"cdf-{key}",
        title=title,
        alt=f"Share of answers within a time: {'; '.join(words)}.",
        x_title="milliseconds",
        y_title="% of answers within",
        lines=tuple(lines),
        marks=tuple(Mark(percent, f"p{percent}") for percent in (50, 95)),
        is_distribution=True,
        x_range=(float(low) * 0.9, max(float(high) * 1.1, float(low) * 2)),
        y_range=(0.0, 102.0),
        height=330,
    )


# ---- over time ---------------------------------------------------------------------------------------


def _timeline(
    timeline: Timeline, server: Sequence[Panel], bands: tuple[Band, ...]
) -> Iterator[Chart]:
    times, width = timeline.times_s, number(timeline.width_s)
    rates = [Line("sent", times, timeline.offered_per_s, BLUE)]
    rates.append(Line("completed", times, timeline.completed_per_s, GREEN, is_dashed=True))
    if timeline.failed_per_s.any():
        rates.append(Line("failed", times, timeline.failed_per_s, RED))
    ttft = [
        Line("p50", times, timeline.ttft_p50_ms, BLUE),
        Line("p95", times, timeline.ttft_p95_ms, ORANGE),
    ]
    in_flight = [Line("in flight", times, timeline.in_flight, PURPLE)]
    extent = (0.0, float(timeline.edges[-1]))
    for key, title, unit, lines in (
        ("rates", "Requests", "requests/s", rates),
        ("in-flight", "In flight", "requests", in_flight),
        ("ttft-time", "Time to first token, from the intended send", "ms", ttft),
    ):
        if any(np.isfinite(line.y).any() for line in lines):
            alt = f"In windows of {width} s: {_highs(lines, unit)}."
            yield _over_time(key, title, alt, unit, lines, bands, extent)
    for panel in server:
        steps = panel.key == "replicas"
        lines = [
            Line(one.name, one.times_s, one.values, colour, is_step=steps)
            for one, colour in zip(panel.lines, COLOURS, strict=False)
        ]
        # Scrapes may be further apart than windows are: lines go from one to the next.
        lines = [_without_gaps(one) for one in lines]
        alt = f"As reported by the server: {_highs(lines, panel.unit)}."
        top = (0.0, 100.0) if panel.unit == "%" else None
        key = f"server-{panel.key}"
        chart = _over_time(key, panel.title, alt, panel.unit, lines, bands, extent, top)
        yield replace(chart, has_whole_y=steps)


def _over_time(
    key: str,
    title: str,
    alt: str,
    unit: str,
    lines: Sequence[Line],
    bands: tuple[Band, ...],
    extent: tuple[float, float],
    y_range: tuple[float, float] | None = None,
) -> Chart:
    return Chart(
        key=key,
        title=title,
        alt=alt,
        x_title=SECONDS,
        y_title=unit or title.lower(),
        lines=tuple(lines),
        bands=bands,
        x_range=extent,
        y_range=y_range,
        is_synced=True,
        height=230,
    )


def _without_gaps(line: Line) -> Line:
    kept = np.isfinite(line.y)
    return Line(line.name, line.x[kept], line.y[kept], line.colour, is_step=line.is_step)


def _highs(lines: Sequence[Line], unit: str) -> str:
    parts = []
    for line in lines:
        finite = line.y[np.isfinite(line.y)]
        if finite.size:
            middle, high = number(float(np.median(finite))), number(float(finite.max()))
            parts.append(f"{line.name} {middle} in the middle, at most {high} {unit}".rstrip())
    return "; ".join(parts)


# ---- the generator -----------------------------------------------------------------------------------


def _generator(
    scenario: Scenario, timeline: Timeline, lag_rows: Sequence[Mapping[str, Any]], sent: int
) -> Iterator[Chart]:
    limits, extent = scenario.validity, (0.0, float(timeline.edges[-1]))
    lag = lag_by_second(lag_rows)
    lines = []
    if lag_rows:
        lines.append(Line("loop lag p99", lag["times_s"], lag["lag_p99_ms"], BLUE))
    if sent and scenario.arrivals.kind != "closed":
        lines.append(
            Line("send lag p99", timeline.times_s, timeline.send_lag_p99_ms, ORANGE, is_dashed=True)
        )
    bands = (Band(0.0, scenario.warmup_s, "warm-up"),) if scenario.warmup_s else ()
    if lines:
        chart = _over_time(
            "lag",
            "How late the generator was",
            f"{_highs(lines, 'ms')}.",
            "ms",
            lines,
            bands,
            extent,
        )
        limit = limits.max_loop_lag_p99_ms
        mark = Mark(limit, f"limit of the loop's lag, {limit:g} ms", RED)
        yield replace(chart, marks=(mark,))
    if lag_rows:
        cpu = [Line("busiest process", lag["times_s"], lag["cpu_percent"], GREY)]
        alt = f"{_highs(cpu, '% of a core')}."
        yield _over_time("cpu", "What the generator used", alt, "% of a core", cpu, bands, extent)
