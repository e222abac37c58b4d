"""The charts of a sweep: latency, SLO attainment and tokens against the offered rate. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

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
from loadtests.statistics import Floats, wilson_lower, wilson_upper

RATE = "offered requests per second"


def charts_of(sweep: Mapping[str, Any]) -> list[Chart]:
    """None where no point was measured."""
    # What an invalid point shows is the generator's fault.
    points = _by_rate([one for one in sweep["points"] if one["valid"] and one["requests"]])
    if not points:
        return []
    bands = tuple(_bracket(sweep))
    rates = _column(points, "rate_per_s")
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


MEANS = ("ttft_p95_ms", "e2e_mean_s", "output_tokens_per_s", "in_flight_mean")


def _by_rate(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One point for all runs of a rate, the lowest first: shares of all requests, means of the rest."""
    found = []
    for rate in sorted({one["rate_per_s"] for one in points}):
        runs = [one for one in points if one["rate_per_s"] == rate]
        requests = sum(one["requests"] for one in runs)
        effective = sum(one.get("effective") or one["requests"] for one in runs)
        share = sum(one["good"] for one in runs) / requests
        means = {key: _mean([one[key] for one in runs]) for key in MEANS}
        bound = wilson_lower(share * effective, effective)
        found.append(
            {
                "rate_per_s": rate,
                "requests": requests,
                "attainment": share,
                "effective": effective,
                "wilson_low": bound,
                **means,
            }
        )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


Plot = tuple[str, str, str, list[Line], list[Mark], tuple[float, float] | None]


def _plots(
    sweep: Mapping[str, Any], points: Sequence[Mapping[str, Any]], rates: Floats
) -> Iterator[Plot]:
    slo, target = sweep["slo"], sweep["slo"].get("target", 0.95) * 100
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
    shares = _column(points, "attainment") * 100
    lows = _column(points, "wilson_low") * 100
    highs = np.array([upper_bound(one) for one in points]) * 100
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


def upper_bound(point: Mapping[str, Any]) -> float:
    """Of the share of good requests; older sweeps do not say how many requests tell as much."""
    effective = point.get("effective") or point["requests"]
    return wilson_upper(point["attainment"] * effective, effective)


def _marks(sweep: Mapping[str, Any], up: float) -> Iterator[Mark]:
    if sweep["rate_per_s"]:
        word = "λ*" if sweep["confirmed"] else "λ*, not confirmed"
        text = f"{word} = {number(sweep['rate_per_s'])}/s"
        yield Mark(sweep["rate_per_s"], text, GREEN, is_upright=True, up=up)


def _bracket(sweep: Mapping[str, Any]) -> Iterator[Band]:
    """Between what held and what did not; the rate that holds is somewhere in it."""
    if sweep["rate_fails_per_s"] is not None:
        yield Band(sweep["rate_per_s"], sweep["rate_fails_per_s"], "", GREY)


def _column(points: Sequence[Mapping[str, Any]], key: str) -> Floats:
    return np.array([np.nan if one[key] is None else one[key] for one in points], dtype=np.float64)


def _ends(lines: Sequence[Line], rates: Floats, unit: str) -> str:
    line = lines[0]
    first, last = number(float(line.y[0])), number(float(line.y[-1]))
    return (
        f"{first} {unit} at {number(float(rates[0]))} requests/s, "
        f"{last} {unit} at {number(float(rates[-1]))} requests/s"
    )
