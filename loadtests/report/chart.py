"""A plot as a description: what it shows, in words and numbers. Page and picture are drawn from it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.analysis.stats import Floats

# Readable on light and on dark ground, and told apart by those who see few colours: after Okabe and Ito.
BLUE, ORANGE, GREEN, RED = "#3d85c6", "#d9822b", "#1f9e77", "#d9534f"
PURPLE, GREY, SKY, BROWN = "#9a6dd7", "#8a8f98", "#5bb5d6", "#a87b4f"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, BROWN, RED, GREY)
# A table beside a plot is for reading, not for calculating: that is what the run's files are for.
TABLE_ROWS = 40
TABLE_PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 100)


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `low` and `high` are the ends of error bars."""

    name: str
    x: Floats
    y: Floats
    colour: str
    is_dashed: bool = False
    has_points: bool = False
    is_step: bool = False
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A straight line across, with a word at it; `is_upright` at a value of x.

    The word of an upright line stands to its right, or left, `up` that share of the height.
    """

    at: float
    text: str
    colour: str = GREY
    is_upright: bool = False
    is_word_left: bool = False
    up: float = 0.97


@dataclass(frozen=True, slots=True)
class Band:
    """A shaded part of x."""

    since: float
    until: float
    text: str
    colour: str = GREY


@dataclass(frozen=True, slots=True)
class Chart:
    """One plot.

    Attributes:
        key: unique on a page, of letters and hyphens.
        alt: what there is to see, in a sentence.
        is_synced: zooms together with others on the page.
    """

    key: str
    title: str
    alt: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()
    # Values along x, on a logarithmic axis, and the percentage that lies below them along y.
    is_distribution: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    is_synced: bool = False
    # Half a replica is nothing.
    has_whole_y: bool = False
    height: int = 300

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column titles and rows: the lines' values at the same places, thinned out."""
        names = [line.name for line in self.lines]
        if self.is_distribution:
            return [self.y_title, *(f"{name}, {self.x_title}" for name in names)], [
                [number(one), *(number(np.interp(one, line.y, line.x)) for line in self.lines)]
                for one in TABLE_PERCENTS
            ]
        return [self.x_title, *names], list(self._rows())

    def _rows(self) -> Iterator[list[str]]:
        if not self.lines:
            return
        places = np.unique(np.concatenate([line.x for line in self.lines]))
        if places.size > TABLE_ROWS:
            places = places[np.linspace(0, places.size - 1, TABLE_ROWS).round().astype(int)]
        for place in places:
            yield [number(place), *(number(_at(line, place)) for line in self.lines)]


def number(value: float | None) -> str:
    """Short, with three significant digits or more; a dash for nothing."""
    if value is None or not np.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if size < 0.1 else f"{value:.2f}" if size < 10 else f"{value:.1f}"


def milliseconds(value: float | None) -> str:
    """With the unit that suits it."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{number(value / 1000)} s" if value >= 10_000 else f"{number(value)} ms"


def percent(value: float | None) -> str:
    """Of a share; rounded down, so that 100 % means all."""
    if value is None or not np.isfinite(value):
        return "–"
    tenths = np.floor(value * 1000 + 1e-9) / 10
    return f"{tenths:.0f} %" if tenths == round(tenths) else f"{tenths:.1f} %"


def _at(line: Line, place: float) -> float:
    found: Sequence[int] = np.flatnonzero(line.x == place).tolist()
    return float(line.y[found[0]]) if found else float("nan")
