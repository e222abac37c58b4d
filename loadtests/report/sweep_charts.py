"""The charts of a sweep: latency, SLO attainment and tokens against the offered rate. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from loadtests.analysis.point import Point
from loadtests.analysis.rate_search import Rate, rates_of
from loadtests.analysis.stats import Floats
from loadtests.report.chart import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Band,
    Chart,
    Line,
    Mark,
    number,
)
from loadtests.report.timeline import knee_of

RATE = "offered requests per second"


def charts_of(sweep: Mapping[str, Any]) -> list[Chart]:
    """None where no point was measured."""
    # What an invalid point shows is the generator's fault.
    known = rates_of([Point(**one) for one in sweep["points"]], target_of(sweep))
    points = [one for one in known if one.counted]
    if not points:
        return []
    bands = tuple(_bracket(sweep))
    rates = np.array([one.rate_per_s for one in points])
    extent = (0.0, float(rates.max()) * 1.06)
    found = []
    for key, title, unit, lines, marks, y_range in _plots(sweep, points, rates):
        found.append(
            Chart(
                key=key,
                title=title,
                alt=f"{title}: {_ends(lines, rates, unit)}.",
                x_title=RATE,
                y_title=unit,
                lines=tuple(lines),
                # Where the curve is not: latency rises to the right, the others do not.
                marks=(*marks, *_marks(sweep, 0.97 if unit in ("ms", "s") else 0.08)),
                bands=bands,
                x_range=extent,
                y_range=y_range,
                height=360,
            )
        )
    return found


Plot = tuple[str, str, str, list[Line], list[Mark], tuple[float, float] | None]


def _plots(sweep: Mapping[str, Any], points: Sequence[Rate], rates: Floats) -> Iterator[Plot]:
    slo, target = sweep["slo"], target_of(sweep) * 100
    for key, title, column, unit, limit_key, colour in (
        ("ttft", "TTFT p95", "ttft_p95_ms", "ms", "ttft_ms", BLUE),
        ("e2e", "E2E mean", "e2e_mean_s", "s", "e2e_ms", ORANGE),
    ):
        values = _column(points, column)
        if not np.isfinite(values).any() or not values.any():
            continue
        marks, limit = [], slo.get(limit_key)
        if limit is not None:
            limit = limit if unit == "ms" else limit / 1000
            marks.append(Mark(limit, f"SLO {number(limit)} {unit}", RED))
        knee = knee_of(rates, values)
        if knee is not None:
            marks.append(
                Mark(float(rates[knee]), "knee", PURPLE, is_upright=True, is_word_left=True)
            )
        line = Line(title, rates, values, colour, has_points=True)
        yield key, f"{title} against the rate", unit, [line], marks, None
    shares = np.array([one.attainment for one in points]) * 100
    lows = np.array([one.low for one in points]) * 100
    highs = np.array([one.high for one in points]) * 100
    attained = Line(
        "good requests, with 95 % Wilson bounds",
        rates,
        shares,
        GREEN,
        has_points=True,
        low=lows,
        high=highs,
    )
    floor = max(0.0, min(float(lows.min()), target) - 5)
    goal = [Mark(target, f"target {target:g} %", RED)]
    yield (
        "attainment",
        "SLO attainment against the rate",
        "% of requests",
        [attained],
        goal,
        (floor, 101.5),
    )
    tokens = Line(
        "output tokens", rates, _column(points, "output_tokens_per_s"), PURPLE, has_points=True
    )
    yield "tokens", "Tokens against the rate", "tokens/s", [tokens], [], None


def target_of(sweep: Mapping[str, Any]) -> float:
    """The share of requests that must be good."""
    return float(sweep["slo"].get("target", 0.95))


def _marks(sweep: Mapping[str, Any], up: float) -> Iterator[Mark]:
    if sweep["rate_per_s"]:
        word = "λ*" if sweep["confirmed"] else "λ*, not confirmed"
        text = f"{word} = {number(sweep['rate_per_s'])}/s"
        yield Mark(sweep["rate_per_s"], text, GREEN, is_upright=True, up=up)


def _bracket(sweep: Mapping[str, Any]) -> Iterator[Band]:
    """Between what held and what did not; the rate that holds is somewhere in it."""
    if sweep["rate_fails_per_s"] is not None:
        yield Band(sweep["rate_per_s"], sweep["rate_fails_per_s"], "", GREY)


def _column(points: Sequence[Rate], key: str) -> Floats:
    """A figure of each rate: the mean of its runs, NaN of what none of them has."""
    return np.array([_mean([getattr(run, key) for run in one.counted]) for one in points])


def _mean(values: Sequence[float | None]) -> float:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else math.nan


def _ends(lines: Sequence[Line], rates: Floats, unit: str) -> str:
    line = lines[0]
    first, last = number(float(line.y[0])), number(float(line.y[-1]))
    return (
        f"{first} {unit} at {number(float(rates[0]))} requests/s, "
        f"{last} {unit} at {number(float(rates[-1]))} requests/s"
    )
