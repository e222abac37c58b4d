"""The page of a sweep, and its picture: the capacity of an endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import orjson

from loadtests.analysis.point import Point
from loadtests.analysis.rate_search import Rate
from loadtests.report.chart import Chart, milliseconds, number, percent
from loadtests.report.page import (
    Cell,
    Key,
    Page,
    Section,
    Table,
    Verdict,
    cells,
    without_user,
    write,
)
from loadtests.report.picture import draw
from loadtests.report.run_tables import LIMITS
from loadtests.report.sweep_charts import charts_of, target_of
from loadtests.run.record import REPORT, SCENARIO
from serving.errors import ConfigError

SWEEP = "sweep.json"
HEAD = ("Offered/s", "Requests", "Good", "Bound", "Backlog", "Generator", "TTFT p95", "E2E mean")


def build_sweep(folder: Path) -> Path:
    """Implements `loadtests.report.build_sweep`."""
    try:
        sweep: dict[str, Any] = orjson.loads((folder / SWEEP).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        raise ConfigError(
            f"{folder}: holds no sweep: {SWEEP} is missing or broken", param=str(folder)
        ) from None
    charts = charts_of(sweep)
    picture, pictures = folder / "sweep.png", []
    if charts:
        alt = " ".join(one.alt for one in charts)
        verdict = verdict_of(sweep).headline
        draw(charts, picture, title=sweep["scenario"], note=verdict, columns=2, row_height=3.6)
        pictures.append((picture, alt))
    else:
        picture.unlink(missing_ok=True)
    page = page_of(
        sweep, charts, links_of(folder, sweep), _document(folder, sweep), tuple(pictures)
    )
    return write(page, folder / REPORT)


def links_of(folder: Path, sweep: Mapping[str, Any]) -> dict[str, str]:
    """Reports of points, by their sub-folder; only of what lies in this folder."""
    found = {}
    for point in sweep["points"]:
        name = point.get("folder") or ""
        is_inside = PurePosixPath(name).name == name != ".."
        if name and is_inside and (folder / name / REPORT).is_file():
            found[name] = f"./{quote(name)}/{REPORT}"
    return found


def _document(folder: Path, sweep: Mapping[str, Any]) -> str:
    """The scenario of the first point that left one; its rate and seed are that point's."""
    for point in sweep["points"]:
        path = folder / (point.get("folder") or "-") / SCENARIO
        if path.is_file():
            return without_user(path.read_text(encoding="utf-8"))
    return ""


def page_of(
    sweep: Mapping[str, Any],
    charts: list[Chart],
    links: Mapping[str, str],
    document: str = "",
    pictures: tuple[tuple[Path, str], ...] = (),
) -> Page:
    """Everything on the page. Pure."""
    sections = [
        Section(
            "curves",
            "Against the offered rate",
            "λ* is the highest rate that held; the true limit lies in the shaded part, between it and the"
            " lowest rate that did not. The knee is where latency begins to rise steeply.",
            tuple(charts),
            empty="" if charts else "No point of the sweep is valid.",
        ),
        Section(
            "points",
            "Points",
            "A rate holds when the one-sided 95 % Wilson lower bound of attainment over all its runs reaches"
            " the target and the backlog does not grow. It fails when the upper bound is below the target."
            " What is between is run again, and so are runs in which the generator was late.",
            tables=(points_table(sweep, links),),
        ),
    ]
    if document:
        sections.append(Section("scenario", "Scenario", "As of the first point.", code=document))
    return Page(
        kind="Comptoir capacity sweep",
        title=sweep["scenario"],
        description="",
        facts=tuple(_facts(sweep)),
        verdict=verdict_of(sweep),
        keys=tuple(_keys(sweep)),
        sections=tuple(sections),
        pictures=pictures,
    )


def verdict_of(sweep: Mapping[str, Any]) -> Verdict:
    """The capacity that was found, in a sentence."""
    rate, fails = sweep["rate_per_s"], sweep["rate_fails_per_s"]
    if not rate:
        low = (
            ""
            if fails is None
            else f"; {number(fails)} requests/s, the lowest that failed, is too much"
        )
        if broken := sum(point.get("broken", 0) for point in sweep["points"]):
            low += f"; {broken:,} answers with status 200 were incomplete or malformed"
        return Verdict("warn", f"No rate was confirmed to hold the objectives{low}")
    count = sweep["hardware"]["replicas"]
    on = f"{count} replica{'' if count == 1 else 's'}"
    if not sweep["confirmed"]:
        return Verdict("warn", f"{number(rate)} requests/s on {on} held once and was not confirmed")
    end = "no higher rate failed" if fails is None else f"{number(fails)} requests/s did not hold"
    return Verdict("good", f"{on} held {number(rate)} requests/s, confirmed; {end}")


def _facts(sweep: Mapping[str, Any]) -> Iterator[str]:
    hardware, slo = sweep["hardware"], sweep["slo"]
    yield f"{sweep['model']}, class {sweep['class']}"
    yield without_user(sweep["url"])
    gpus = hardware["gpus_per_replica"]
    each = f"{gpus} × {hardware['gpu']}" if hardware["gpu"] else "no GPU named"
    count = hardware["replicas"]
    yield f"{count} replicas, each with {each}" if count != 1 else f"1 replica with {each}"
    limits = ", ".join(f"{name} ≤ {number(slo[key])} ms" for name, key in LIMITS if slo.get(key))
    yield f"{percent(target_of(sweep))} of requests: {limits or 'complete answers'}"
    yield str(sweep["created"])


def _keys(sweep: Mapping[str, Any]) -> Iterator[Key]:
    rate, fails = sweep["rate_per_s"], sweep["rate_fails_per_s"]
    note = "confirmed" if sweep["confirmed"] else "not confirmed"
    yield Key("λ*, the rate that holds", f"{number(rate)}/s" if rate else "–", note)
    yield Key("Lowest rate that fails", "–" if fails is None else f"{number(fails)}/s")
    at = [one for one in sweep["points"] if one["valid"] and one["rate_per_s"] == rate]
    if at:
        yield Key("Output tokens at λ*", f"{number(at[-1]['output_tokens_per_s'])}/s")
        yield Key("In flight at λ*", number(at[-1]["in_flight_mean"]))
        yield Key("TTFT p95 at λ*", milliseconds(at[-1]["ttft_p95_ms"]))
    lengths = f"{number(sweep['input_tokens_mean'])} / {number(sweep['output_tokens_mean'])}"
    total = number(sweep["total_tokens_p95"])
    yield Key("Tokens in / out, mean", lengths, f"p95 of both together {total}")


def _verdict(point: Mapping[str, Any], target: float) -> Cell:
    """What one run alone shows of its rate."""
    if point.get("broken"):
        return Cell(f"{point['broken']:,} broken answers", "bad")
    if not point["valid"]:
        return Cell("does not count")
    match Rate(point["rate_per_s"], target, (Point(**point),)).state:
        case "holds":
            return Cell("holds", "good")
        case "fails":
            return Cell("fails", "bad")
    return Cell("cannot tell")


def points_table(sweep: Mapping[str, Any], links: Mapping[str, str]) -> Table:
    """In the order they were measured."""
    rows = []
    for point in sweep["points"]:
        rate = number(point["rate_per_s"])
        if point.get("is_confirmation"):
            rate += " (confirmation)"
        e2e = point["e2e_mean_s"]
        rows.append(
            cells(
                (
                    Cell(rate, link=links.get(point.get("folder") or "", "")),
                    f"{point['requests']:,}",
                    percent(point["attainment"]),
                    percent(point["wilson_low"]),
                    Cell("grows", "bad") if point["backlog_grows"] else Cell("steady"),
                    Cell("valid") if point["valid"] else Cell("INVALID", "bad"),
                    milliseconds(point["ttft_p95_ms"]),
                    milliseconds(None if e2e is None else e2e * 1000),
                    number(point["output_tokens_per_s"]),
                    number(point["in_flight_mean"]),
                    _verdict(point, target_of(sweep)),
                )
            )
        )
    head = (*HEAD, "Tokens/s", "In flight", "Alone")
    return Table("In the order they were measured", head, tuple(rows))
