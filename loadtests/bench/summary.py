"""Medians over rounds, and ratios. Pure; percentiles are those of analysis/stats.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence


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
