"""Percentiles, medians and ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def percentile_50(values: Iterable[float]) -> float:
    """The median: of an even number the middle of both; NaN of nothing."""
    found = list(values)
    return statistics.median(found) if found else math.nan


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure that any round has."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {
        name: statistics.median(figures[name] for figures in rounds if name in figures)
        for name in names
    }


def ratio(value: float, baseline: float) -> float:
    """How many times the baseline; NaN where there is none."""
    return value / baseline if baseline else math.nan
