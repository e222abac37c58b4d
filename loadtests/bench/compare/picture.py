"""The picture of a comparison: throughput against vLLM's own server, and the time to the first token."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.contenders import BASELINE, COMPTOIR, CONTENDERS
from loadtests.bench.compare.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOKENS = 64
SUFFIXES = (".svg", ".png")
# One hue for each family, readable without colours too: light to dark within it.
COLOURS = {
    "vllm": "#6b7280",
    "vllm-default": "#b6bcc6",
    "ray": "#f3c98b",
    "ray-tuned": "#e39b3b",
    "ray-direct": "#b26a12",
    "comptoir": "#1f5fa8",
}
INK, MUTED, GRID = "#1f2933", "#5b6672", "#e3e7eb"


@dataclass(frozen=True)
class Series:
    """One server over all numbers of streams; NaN where it was not measured."""

    name: str
    title: str
    ratios: tuple[float, ...]
    ttfts_ms: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """What is drawn."""

    streams: tuple[int, ...]
    series: tuple[Series, ...]
    note: str


def chart_of(
    results: Results, cells: Sequence[Cell], contenders: Sequence[str], note: str
) -> Chart | None:
    """The streamed cells of 64 tokens; None where there is nothing to draw."""
    chosen = [cell for cell in cells if cell.stream and cell.tokens == TOKENS]
    series = [
        Series(
            name,
            CONTENDERS[name].title,
            tuple(results.ratio(name, cell, "requests_per_s") for cell in chosen),
            tuple(results.figure(name, cell, "ttft_p50_ms") for cell in chosen),
        )
        for name in contenders
    ]
    measured = tuple(one for one in series if not all(map(math.isnan, one.ttfts_ms)))
    if not chosen or not measured:
        return None
    return Chart(tuple(cell.streams for cell in chosen), measured, note)


def draw(chart: Chart, stem: Path) -> list[Path]:
    """Write the picture as SVG and PNG beside each other; returns where."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot, ticker

    # The same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "comptoir"
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12.5, 5.0), width_ratios=(1, 1))
    _bars(left, chart, [one.ratios for one in chart.series], "{:.2f}", {COMPTOIR})
    left.axhline(1.0, color=INK, linewidth=1, zorder=1)
    left.set_ylim(0, 1.08 * max(1.0, left.dataLim.ymax))
    _name(left, "Requests per second", "multiple of vLLM's own server; higher is better")
    _bars(right, chart, [one.ttfts_ms for one in chart.series], "{:.0f}", {COMPTOIR, BASELINE})
    right.set_yscale("log")
    right.set_ylim(bottom=1)
    right.yaxis.set_minor_locator(ticker.NullLocator())
    right.yaxis.set_major_formatter("{x:g}")
    _name(right, "Time to first token, median", "ms, logarithmic; lower is better")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 0.045)
    )
    figure.text(0.5, 0.012, chart.note, ha="center", color=MUTED, fontsize=8)
    figure.tight_layout(rect=(0, 0.15, 1, 1), w_pad=3)
    paths = [stem.with_suffix(suffix) for suffix in SUFFIXES]
    for path in paths:
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    return paths


def copy(paths: Sequence[Path], to: Path) -> None:
    """Copy the picture of the wanted kind."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(next(path for path in paths if path.suffix == to.suffix), to)


def _bars(
    axes: Axes,
    chart: Chart,
    values: Sequence[tuple[float, ...]],
    label: str,
    labelled: Collection[str],
) -> None:
    width = 0.84 / len(chart.series)
    for place, (one, heights) in enumerate(zip(chart.series, values, strict=True)):
        offset = (place - (len(chart.series) - 1) / 2) * width
        positions = [group + offset for group in range(len(chart.streams))]
        bars = axes.bar(
            positions, heights, 0.92 * width, label=one.title, color=COLOURS[one.name], zorder=2
        )
        # Numbers on all bars would hide the picture.
        if one.name in labelled:
            texts = ["" if math.isnan(height) else label.format(height) for height in heights]
            axes.bar_label(bars, texts, padding=2, fontsize=8, color=INK)
    axes.set_xticks(range(len(chart.streams)), [_streams(count) for count in chart.streams])


def _name(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=22)
    axes.text(0, 1.02, unit, transform=axes.transAxes, color=MUTED, fontsize=9)
    axes.grid(axis="y", color=GRID, linewidth=0.8, zorder=0)
    axes.tick_params(length=0, colors=MUTED)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"
