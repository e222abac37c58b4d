"""Renders a page: templates, styles and scripts become one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from loadtests.report.chart import Chart
from loadtests.report.plot import as_json

HERE = Path(__file__).parent
# A name and a password may stand in an address; a report is shown around.
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@'\"]+@")
State = Literal["", "good", "bad", "faint"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell; `state` colours it, and its text says the same in words."""

    text: str
    state: State = ""
    # A file beside the page.
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of the first column are heads of their rows; columns from `numbers_from` on are numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers_from: int = 1


@dataclass(frozen=True, slots=True)
class Key:
    """A key figure."""

    name: str
    value: str
    note: str = ""
    state: State = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict at the top of the page."""

    state: Literal["good", "warn", "bad"]
    headline: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; `layout` is how its charts stand: beside each other or stacked."""

    key: str
    title: str
    text: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    code: str = ""
    layout: Literal["beside", "stacked"] = "beside"
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The contents of a page."""

    kind: str
    title: str
    description: str
    facts: tuple[str, ...]
    verdict: Verdict
    keys: tuple[Key, ...]
    sections: tuple[Section, ...]
    pictures: tuple[tuple[Path, str], ...] = field(default=())


def cells(values: Iterable[str | Cell]) -> tuple[Cell, ...]:
    """A row."""
    return tuple(one if isinstance(one, Cell) else Cell(one) for one in values)


def without_user(text: str) -> str:
    """The same without names and passwords in addresses."""
    return _USER_IN_URL.sub("…@", text)


def write(page: Page, path: Path) -> Path:
    """Render it."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        # Of every template, whatever its ending: nothing that comes from outside is markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure_json": _figure_json, "data_url": _data_url}
    text = environment.get_template("page.html.jinja").render(
        page=page,
        style=Markup(_read("style.css.jinja")),  # noqa: S704 - ours
        script=Markup(_read("script.js.jinja")),  # noqa: S704 - ours
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - the library itself
        has_charts=any(section.charts for section in page.sections),
    )
    path.write_text(text, encoding="utf-8")
    return path


def _figure_json(chart: Chart) -> Markup:
    return Markup(as_json(chart))  # noqa: S704 - `as_json` leaves no markup in it


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def or_dash(value: float | None, show: Callable[[float], str]) -> str:
    """A value as text, or a dash."""
    return "–" if value is None or math.isnan(value) else show(value)


def latency_of(figures: Mapping[str, Any], name: str) -> Mapping[str, float | None]:
    """p50 to max of one latency in a summary, None where there is none."""
    found: Mapping[str, float | None] | None = figures["latency"].get(name)
    return found or dict.fromkeys(("p50", "p90", "p95", "p99", "max", "mean"))
