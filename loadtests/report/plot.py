"""Charts as plotly's JSON, for the page: https://plotly.com/javascript/reference/. Pure.

Grounds, grids and text get their colours in the page, which knows whether it is light or dark.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import orjson

from loadtests.analysis.stats import Floats
from loadtests.report.chart import Band, Chart, Line, Mark


def as_json(chart: Chart) -> str:
    """To stand in a script element: no name from outside can end that."""
    text = orjson.dumps(as_plotly(chart)).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def as_plotly(chart: Chart) -> dict[str, Any]:
    """Data and layout of a figure."""
    layout: dict[str, Any] = {
        "height": chart.height,
        "margin": {"l": 62, "r": 16, "t": 14, "b": 46},
        "hovermode": "x unified" if not chart.is_distribution else "closest",
        "showlegend": len(chart.lines) > 1,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": _axis(chart.x_title, chart.x_range, is_log=chart.is_distribution),
        "yaxis": _axis(chart.y_title, chart.y_range)
        | ({} if chart.y_range else {"rangemode": "tozero"})
        | ({"tickformat": "d"} if chart.has_whole_y else {}),
        "shapes": [*map(_band, chart.bands), *map(_line_across, chart.marks)],
        "annotations": [_note(one, chart) for one in chart.marks if one.text]
        + [_band_note(one) for one in chart.bands if one.text],
    }
    return {"data": [_trace(one, chart) for one in chart.lines], "layout": layout}


def _axis(
    title: str, extent: tuple[float, float] | None, *, is_log: bool = False
) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": escape(title), "standoff": 8}, "automargin": True}
    if is_log:
        axis |= {"type": "log", "dtick": "D2" if extent and extent[1] / extent[0] < 30 else 1}
        if extent:
            axis["range"] = [float(np.log10(one)) for one in extent]
    elif extent:
        axis["range"] = list(extent)
    return axis


def _trace(line: Line, chart: Chart) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": escape(line.name),
        "x": _rounded(line.x),
        "y": _rounded(line.y),
        "mode": "lines+markers" if line.has_points else "lines",
        "line": {
            "color": line.colour,
            "width": 2,
            "dash": "dash" if line.is_dashed else "solid",
            "shape": "hvh" if line.is_step else "linear",
        },
        "connectgaps": False,
    }
    if line.has_points:
        trace["marker"] = {"color": line.colour, "size": 7}
    if chart.is_distribution:
        trace["hovertemplate"] = "%{y:.1f} % within %{x:,.1f} ms"
    if line.low is not None and line.high is not None:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": _rounded(line.high - line.y),
            "arrayminus": _rounded(line.y - line.low),
            "color": line.colour,
            "thickness": 1.5,
            "width": 4,
        }
    return trace


def _rounded(values: Floats) -> list[float | None]:
    """Five significant digits: half the size, and nobody sees more."""
    return [float(f"{one:.5g}") if np.isfinite(one) else None for one in values.tolist()]


def _line_across(mark: Mark) -> dict[str, Any]:
    along, across = ("x", "y") if mark.is_upright else ("y", "x")
    return {
        "type": "line",
        f"{along}0": mark.at,
        f"{along}1": mark.at,
        f"{across}0": 0,
        f"{across}1": 1,
        f"{across}ref": "paper",
        "line": {"color": mark.colour, "width": 1.5, "dash": "dot"},
    }


def _note(mark: Mark, chart: Chart) -> dict[str, Any]:
    note: dict[str, Any] = {
        "text": escape(mark.text),
        "showarrow": False,
        "font": {"size": 11, "color": mark.colour},
    }
    if mark.is_upright:
        at = float(np.log10(mark.at)) if chart.is_distribution else mark.at
        side, shift = ("right", -4) if mark.is_word_left else ("left", 4)
        place: dict[str, Any] = {"x": at, "y": mark.up, "yref": "paper", "yanchor": "top"}
        place |= {"xanchor": side, "xshift": shift}
    else:
        place = {"y": mark.at, "x": 1, "xref": "paper", "xanchor": "right", "yanchor": "top"}
    return note | place


def _band(band: Band) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": band.since,
        "x1": band.until,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "fillcolor": band.colour,
        "opacity": 0.13,
        "line": {"width": 0},
        "layer": "below",
    }


def _band_note(band: Band) -> dict[str, Any]:
    return {
        "text": escape(band.text),
        "showarrow": False,
        "font": {"size": 11, "color": band.colour},
        "x": band.since,
        "y": 1,
        "yref": "paper",
        "yanchor": "top",
        "xanchor": "left",
        "xshift": 4,
    }
