"""The servers' own metrics during a run: rows of metrics.jsonl become lines of a plot. Pure.

Names are vLLM's (https://docs.vllm.ai/en/stable/usage/metrics/), the gateway's (serving/gateway/report.py)
and those of NVIDIA's DCGM exporter. What was not scraped is not there: it is never drawn as zero.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loadtests.analysis.stats import Floats

_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="([^"]*)"')
# How values of one moment and one model become one: of processes that each count their own, of those that
# all say the same, and of engines whose share is of interest.
Together = Literal["sum", "max", "mean"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `values` at `times_s`, NaN where nothing was scraped."""

    name: str
    times_s: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share an axis."""

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """A metric, under the names it has had; the first that was scraped is taken."""

    title: str
    names: tuple[str, ...]
    together: Together = "sum"
    # A counter is drawn as what it grows by each second, times this.
    is_counter: bool = False
    scale: float = 1.0


_PANELS: tuple[tuple[str, str, str, tuple[_Source, ...]], ...] = (
    ("replicas", "Replicas", "", (_Source("replicas", ("comptoir_replicas",), "max"),)),
    (
        "queue",
        "Queues",
        "requests",
        (
            _Source("running", ("vllm:num_requests_running", "comptoir_engine_running")),
            _Source("waiting in engines", ("vllm:num_requests_waiting", "comptoir_engine_waiting")),
            _Source("waiting at the gateway", ("comptoir_admission_waiting",)),
        ),
    ),
    (
        "kv",
        "KV cache in use",
        "%",
        (
            _Source(
                "KV cache",
                ("vllm:kv_cache_usage_perc", "comptoir_engine_kv_cache_use"),
                "mean",
                scale=100,
            ),
        ),
    ),
    (
        "power",
        "Power",
        "W",
        (
            _Source("GPUs", ("DCGM_FI_DEV_POWER_USAGE",)),
            _Source("processors", ("host_energy_joules_total",), is_counter=True),
        ),
    ),
)
_HITS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits")
_QUERIES = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_queries")
_WANTED = frozenset(
    name for *_, sources in _PANELS for source in sources for name in source.names
) | {*_HITS, *_QUERIES}

# Of one series: by name, then by model, then by source and labels, a list of (time, value).
_Samples = dict[str, dict[str, dict[str, list[tuple[float, float]]]]]


def panels(rows: Iterable[Mapping[str, Any]], edges: Floats) -> list[Panel]:
    """What can be drawn, averaged in the windows between edges."""
    samples = _read(rows)
    found = [
        Panel(key, title, unit, tuple(_lines(samples, sources, edges)))
        for key, title, unit, sources in _PANELS
    ]
    hits = tuple(_cache_lines(samples, edges))
    found.insert(3, Panel("cache", "Prefix cache hits", "%", hits))
    return [one for one in found if one.lines]


def _read(rows: Iterable[Mapping[str, Any]]) -> _Samples:
    found: _Samples = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    parsed: dict[str, tuple[str, str]] = {}
    for row in rows:
        for series, value in row["values"].items():
            if series not in parsed:
                name, _, inside = series.partition("{")
                labels = dict(_LABEL.findall(inside))
                parsed[series] = name, labels.get("model") or labels.get("model_name", "")
            name, model = parsed[series]
            if name in _WANTED and value is not None:
                key = f"{row['source']} {series}"
                found[name][model][key].append((row["t_s"], value))
    return found


def _lines(samples: _Samples, sources: Sequence[_Source], edges: Floats) -> Iterable[Line]:
    for source in sources:
        name = next((one for one in source.names if one in samples), None)
        if name is None:
            continue
        models = samples[name]
        for model, by_key in sorted(models.items()):
            put = _rates if source.is_counter else _means
            table = np.array([put(pairs, edges) for pairs in by_key.values()])
            values = _together(table, source.together) * source.scale
            if not np.isnan(values).all():
                title = source.title
                if len(models) > 1 and model:
                    title = f"{title}: {model}" if len(sources) > 1 else model
                yield Line(title, _middles(edges), values)


def _cache_lines(samples: _Samples, edges: Floats) -> Iterable[Line]:
    hits = next((samples[one] for one in _HITS if one in samples), {})
    queries = next((samples[one] for one in _QUERIES if one in samples), {})
    for model in sorted(set(hits) & set(queries)):
        hit, asked = (
            _together(np.array([_rates(pairs, edges) for pairs in one[model].values()]), "sum")
            for one in (hits, queries)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            # Nothing asked is no share, not a share of nothing.
            shares = np.where(asked > 0, hit / asked * 100, np.nan)
        if not np.isnan(shares).all():
            yield Line(model if len(hits) > 1 and model else "hits", _middles(edges), shares)


def _means(pairs: Sequence[tuple[float, float]], edges: Floats) -> Floats:
    times, values = np.array(pairs, dtype=np.float64).T
    sums, _ = np.histogram(times, edges, weights=values)
    counts, _ = np.histogram(times, edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        means: Floats = sums / counts
    return means


def _rates(pairs: Sequence[tuple[float, float]], edges: Floats) -> Floats:
    """What a counter grows by each second; one that begins anew has grown from zero."""
    times, values = np.array(sorted(pairs), dtype=np.float64).T
    steps = np.diff(values)
    steps = np.where(steps < 0, values[1:], steps)
    seconds = np.diff(times)
    kept = seconds > 0
    if not kept.any():
        return np.full(edges.size - 1, np.nan)
    return _means(
        list(zip(times[1:][kept].tolist(), (steps[kept] / seconds[kept]).tolist(), strict=True)),
        edges,
    )


def _together(table: Floats, how: Together) -> Floats:
    """One row of many; NaN only where all are."""
    is_there = ~np.isnan(table)
    counts = is_there.sum(axis=0)
    if how == "max":
        merged = np.where(is_there, table, -np.inf).max(axis=0)
    else:
        merged = np.where(is_there, table, 0).sum(axis=0)
        if how == "mean":
            merged = merged / np.maximum(counts, 1)
    whole: Floats = np.where(counts > 0, merged, np.nan)
    return whole


def _middles(edges: Floats) -> Floats:
    middles: Floats = (edges[1:] + edges[:-1]) / 2
    return middles
