"""Charts as pictures: PNG files beside the page, for documents and chats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator

from loadtests.report.chart import Chart, Line

INK, FAINT, GROUND = "#22262b", "#e4e6ea", "#ffffff"
DPI = 130

LEGEND_COLUMNS = 4


def draw(
    charts: Sequence[Chart],
    path: Path,
    *,
    title: str,
    note: str,
    columns: int,
    row_height: float,
    width: float | None = None,
) -> Path:
    """Several charts in one picture, from left to right and down.

    `note` is the small text below: whether the run is valid, above all. Sizes are in inches.
    """
    rows = -(-len(charts) // columns)
    size = (width or max(11, 5.2 * columns), 0.9 + rows * row_height)
    layout = ConstrainedLayoutEngine(hspace=0.04, wspace=0.03)
    figure = Figure(figsize=size, layout=layout, facecolor=GROUND)
    # Names from outside may hold dollar signs, which matplotlib would read as formulas.
    figure.suptitle(_plain(title), x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, chart in zip(axes, charts, strict=False):
        _draw_one(axis, chart)
    if columns == 1:
        # One above the other, they share their axis.
        for axis in axes[: len(charts) - 1]:
            axis.set_xlabel("")
    for axis in axes[len(charts) :]:
        axis.set_visible(False)
    figure.supxlabel(_plain(note), x=0.012, ha="left", fontsize=9, color="#5c636c")
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _draw_one(axis: Any, chart: Chart) -> None:
    for band in chart.bands:
        axis.axvspan(band.since, band.until, color=band.colour, alpha=0.13, lw=0)
        _word(axis, band.since, 0.96, band.text, band.colour)
    for mark in chart.marks:
        draw_line = axis.axvline if mark.is_upright else axis.axhline
        draw_line(mark.at, color=mark.colour, lw=1.2, ls=":")
    for line in chart.lines:
        _draw_line(axis, line)
    axis.set_title(
        _plain(chart.title),
        loc="left",
        fontsize=10.5,
        color=INK,
        # Above the rows of the legend.
        pad=7 + 13 * -(-len(chart.lines) // LEGEND_COLUMNS) if len(chart.lines) > 1 else 7,
    )
    axis.set_xlabel(_plain(chart.x_title), fontsize=9, color=INK)
    axis.set_ylabel(_plain(chart.y_title), fontsize=9, color=INK)
    axis.tick_params(labelsize=8.5, colors=INK, length=3)
    axis.grid(color=FAINT, lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#b5bac1")
    _scale(axis, chart)
    for mark in chart.marks:
        if mark.is_upright:
            _word(axis, mark.at, mark.up, mark.text, mark.colour, is_left=mark.is_word_left)
        elif mark.text:
            place = (0.99, mark.at)
            axis.annotate(
                _plain(mark.text),
                place,
                (0, -2),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
                va="top",
                fontsize=8,
                color=mark.colour,
            )
    if len(chart.lines) > 1:
        axis.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 0.985),
            ncols=min(LEGEND_COLUMNS, len(chart.lines)),
            fontsize=8,
            frameon=False,
            handlelength=1.6,
            columnspacing=1.2,
            labelcolor=INK,
        )


def _draw_line(axis: Any, line: Line) -> None:
    style: dict[str, Any] = {
        "color": line.colour,
        "lw": 1.7,
        "ls": "--" if line.is_dashed else "-",
        "label": _plain(line.name),
        "marker": "o" if line.has_points else None,
        "ms": 4,
    }
    if line.is_step:
        style["drawstyle"] = "steps-mid"
    # A single point with gaps on both sides would not be seen as a line.
    if np.isfinite(line.y).sum() == 1:
        style["marker"] = "o"
    if line.low is not None and line.high is not None:
        ends = np.maximum(0, np.array([line.y - line.low, line.high - line.y]))
        axis.errorbar(line.x, line.y, yerr=ends, capsize=3, elinewidth=1.2, **style)
    else:
        axis.plot(line.x, line.y, **style)


def _scale(axis: Any, chart: Chart) -> None:
    if chart.is_distribution:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.xaxis.set_minor_formatter("")
    if chart.x_range:
        axis.set_xlim(*chart.x_range)
    if chart.has_whole_y:
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    if chart.y_range:
        axis.set_ylim(*chart.y_range)
    else:
        axis.set_ylim(bottom=0)


def _word(axis: Any, x: float, up: float, text: str, colour: str, *, is_left: bool = False) -> None:
    axis.annotate(
        _plain(text),
        (x, up),
        (-4 if is_left else 4, 0),
        ("data", "axes fraction"),
        "offset points",
        fontsize=8,
        color=colour,
        ha="right" if is_left else "left",
        va="top",
        annotation_clip=True,
    )


def _plain(text: str) -> str:
    return text.replace("$", r"\$")
