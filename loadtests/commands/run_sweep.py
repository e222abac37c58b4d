"""Runs the points of a sweep one after another, and leaves sweep.json. What `comptoir load sweep` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from loadtests import report
from loadtests.analysis.point import Point, enough_s, judge
from loadtests.analysis.rate_search import Rate, Search, as_document
from loadtests.analysis.stats import percentile
from loadtests.commands.run_view import no_answer_in_words
from loadtests.generator.launch import run
from loadtests.run.record import Record, read_records
from loadtests.workload.scenario import Scenario
from serving.errors import ComptoirError, ConfigError

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Hardware:
    """The hardware that answered; `gpu` is None on CPUs."""

    gpu: str | None
    gpus_per_replica: int
    replicas: int


def sweep(
    scenario: Scenario,
    folder: Path,
    search: Search,
    hardware: Hardware,
    processes: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run points until the rate is found; each is on disk before the next begins.

    Raises:
        ConfigError: the folder holds a sweep already.
        ComptoirError: it was stopped (the points until then are in sweep.json), or had no answer at all.
    """
    if (folder / SWEEP).exists():
        raise ConfigError(f"--out: {folder} holds a sweep already", param="--out")
    folder.mkdir(parents=True, exist_ok=True)
    points: list[Point] = []
    kept: list[Record] = []
    document = _document(scenario, hardware, points, kept)
    target = scenario.classes[0].slo.target
    while (following := search.next_rate(points, target)) is not None:
        rate, is_confirmation = following
        number = len(points) + 1
        name = f"point-{number:02d}"
        records, point = _point(
            scenario, folder / name, rate, number, processes, is_confirmation=is_confirmation
        )
        kept += records
        points.append(point)
        say(
            f"{rate:.3g}/s: {100 * point.attainment:.1f} % of {point.requests} good, "
            f"{Rate.of(points, rate, target).verdict}"
        )
        document = _document(scenario, hardware, points, kept)
        (folder / SWEEP).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    report.build_sweep(folder)
    return document


def _point(
    scenario: Scenario,
    folder: Path,
    rate: float,
    number: int,
    processes: int,
    *,
    is_confirmation: bool,
) -> tuple[list[Record], Point]:
    arrivals = scenario.arrivals.model_copy(update={"kind": "poisson", "rate_per_s": rate})
    # Low rates last longer: a few requests show nothing, however good they are.
    least_s = scenario.warmup_s + enough_s(rate, scenario.classes[0].slo)
    duration_s = max(scenario.duration_s, least_s)
    update = {
        "arrivals": arrivals,
        "seed": scenario.seed + number,
        "duration_s": duration_s,
    }
    finished = run(scenario.model_copy(update=update), folder, processes)
    if finished.was_interrupted:
        # A run that was stopped says nothing of its rate, and whoever stopped it means the sweep.
        raise ComptoirError(f"the sweep was stopped; what it found is in {folder.parent}")
    records = list(read_records(folder))
    if number == 1 and not any(one.is_ok for one in records):
        raise ComptoirError(no_answer_in_words(scenario.target.url, finished.summary))
    counted = (scenario.warmup_s, duration_s)
    slo = scenario.classes[0].slo
    return records, judge(
        rate,
        records,
        slo,
        counted,
        valid=finished.valid,
        is_confirmation=is_confirmation,
        folder=folder.name,
    )


def _document(
    scenario: Scenario, hardware: Hardware, points: list[Point], records: list[Record]
) -> dict[str, Any]:
    kind = scenario.classes[0]
    answered = [one for one in records if one.is_ok]
    totals = [max(0, one.prompt_tokens) + max(0, one.output_tokens) for one in answered]
    about = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "scenario": scenario.name,
        "url": scenario.target.url,
        "model": kind.model,
        "hardware": asdict(hardware),
        "class": kind.name,
        "duration_s": scenario.duration_s,
        "input_tokens_mean": _mean([max(0, one.prompt_tokens) for one in answered]),
        "output_tokens_mean": _mean([max(0, one.output_tokens) for one in answered]),
        "total_tokens_p95": percentile(totals, 95) if totals else 0.0,
    }
    return as_document(points, about, kind.slo)


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0
