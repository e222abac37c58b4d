"""The data of a run's charts, aggregated: windows of time and points of distributions. Pure.

However many requests there were, a plot gets some hundred points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtests.analysis.columns import Columns
from loadtests.analysis.stats import Floats, occupancy

MAX_WINDOWS = 120
# Widths of windows that can be read off an axis.
WIDTHS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600)
# Percents at which distributions are drawn: every half, and closer where the tail is.
CDF_PERCENTS = np.unique(
    np.concatenate((np.linspace(0, 95, 191), np.linspace(95, 99, 81), np.linspace(99, 100, 51)))
)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Figures by window; NaN where a window has none."""

    edges: Floats
    offered_per_s: Floats
    completed_per_s: Floats
    failed_per_s: Floats
    in_flight: Floats
    ttft_p50_ms: Floats
    ttft_p95_ms: Floats
    send_lag_p99_ms: Floats

    @property
    def times_s(self) -> Floats:
        """The middles of the windows."""
        middles: Floats = (self.edges[1:] + self.edges[:-1]) / 2
        return middles

    @property
    def width_s(self) -> float:
        """Of one window."""
        return float(self.edges[1] - self.edges[0])


def timeline_of(columns: Columns, duration_s: float) -> Timeline:
    """From the beginning of the run to the last answer."""
    last_s = float(columns.end_s.max()) if len(columns) else 0.0
    edges = edges_to(max(duration_s, last_s))
    width_s = edges[1] - edges[0]

    def per_s(times: Floats) -> Floats:
        counts: Floats = np.histogram(times, edges)[0] / width_s
        return counts

    ttft_ms = np.where(columns.ok, (columns.first_s - columns.intended_s) * 1000, np.nan)
    lag_ms = (columns.sent_s - columns.intended_s) * 1000
    p50, p95 = by_window(columns.intended_s, ttft_ms, edges, (50, 95))
    (lag,) = by_window(columns.intended_s, lag_ms, edges, (99,))
    return Timeline(
        edges=edges,
        offered_per_s=per_s(columns.intended_s),
        completed_per_s=per_s(columns.end_s[columns.ok]),
        failed_per_s=per_s(columns.end_s[~columns.ok]),
        in_flight=occupancy(columns.intended_s, columns.end_s, edges),
        ttft_p50_ms=p50,
        ttft_p95_ms=p95,
        send_lag_p99_ms=lag,
    )


def edges_to(end_s: float) -> Floats:
    """Edges of windows of one width, from 0 to past the end."""
    width_s = next((one for one in WIDTHS_S if end_s / one <= MAX_WINDOWS), end_s / MAX_WINDOWS)
    count = max(1, int(np.ceil(end_s / width_s - 1e-9)))
    edges: Floats = np.arange(count + 1, dtype=np.float64) * float(width_s)
    return edges


def by_window(
    times: Floats, values: Floats, edges: Floats, percents: Sequence[float]
) -> list[Floats]:
    """Percentiles of the values of each window."""
    kept = ~np.isnan(values)
    places = np.searchsorted(edges, times[kept], side="right") - 1
    order = np.argsort(places, kind="stable")
    ordered, bounds = values[kept][order], np.searchsorted(places[order], np.arange(edges.size))
    found = np.full((len(percents), edges.size - 1), np.nan)
    for place in range(edges.size - 1):
        mine = ordered[bounds[place] : bounds[place + 1]]
        if mine.size:
            found[:, place] = np.percentile(mine, percents)
    return list(found)


def cdf_of(values: Floats) -> tuple[Floats, Floats]:
    """Values at `CDF_PERCENTS`, and those percents; nothing of nothing."""
    found = values[~np.isnan(values)]
    if not found.size:
        return np.array([]), np.array([])
    return np.percentile(found, CDF_PERCENTS), CDF_PERCENTS


def lag_by_second(rows: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """The generator's worst process in each second: its loop's lag and its share of a core."""
    worst: dict[int, tuple[float, float]] = {}
    for row in rows:
        second = int(row["t_s"])
        lag, cpu = worst.get(second, (0.0, 0.0))
        worst[second] = max(lag, row["lag_p99_ms"]), max(cpu, row["cpu_share"])
    seconds = sorted(worst)
    # A long run has more seconds than a plot has room for.
    step = max(1, len(seconds) // 600)
    parts = [seconds[start : start + step] for start in range(0, len(seconds), step)]
    return {
        "times_s": np.array([part[0] for part in parts], dtype=np.float64),
        "lag_p99_ms": np.array([max(worst[one][0] for one in part) for part in parts]),
        "cpu_percent": np.array([max(worst[one][1] for one in part) * 100 for part in parts]),
    }


def knee_of(rates: Floats, latencies: Floats) -> int | None:
    """Where latency begins to rise steeply: the point furthest below the line from first to last.

    Satopää et al., "Finding a kneedle in a haystack" (2011), for a curve that rises; None without a bend.
    """
    if rates.size < 4 or np.ptp(rates) <= 0 or np.ptp(latencies) <= 0:
        return None
    across = (rates - rates[0]) / (rates[-1] - rates[0])
    up = (latencies - latencies.min()) / np.ptp(latencies)
    below = across - up
    place = int(below.argmax())
    return place if below[place] >= 0.2 and 0 < place < rates.size - 1 else None
