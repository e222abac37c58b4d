"""Compares two runs of one workload: every figure with an interval of its ratio, and a verdict.

Intervals are block bootstraps: the counted time is cut into windows, and whole windows are drawn again and
again, so that neighbouring requests, which share a queue, are not taken for independent ones. The same
windows are drawn from both runs: they had the same load, so what both share, a ramp or a burst, is no noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.analysis.columns import Columns, Mask
from loadtests.analysis.stats import (
    Floats,
    interval,
    percentile,
    resample_blocks,
    resampled_percentiles,
    resampled_sums,
)
from loadtests.analysis.summary import counted_span, slos_of, summarise_columns
from loadtests.answers.ends import BROKEN
from loadtests.run.folder import read_rows
from loadtests.run.record import LAG, RECORDS, SCENARIO, read_records
from loadtests.workload.scenario import Scenario
from serving.errors import ConfigError

TOLERANCE = 0.05
RESAMPLES = 1000
# Windows of the counted time: so many that intervals are steady, and none shorter than this if it can be.
MAX_WINDOWS, MIN_WINDOWS, WINDOW_S = 60, 10, 2.0
# What makes a workload. Where it goes to, how it is judged and its seed may differ.
WORKLOAD = ("classes", "arrivals", "duration_s", "warmup_s")
LATENCIES = {
    "TTFT": "ttft_intended_ms",
    "ITL": "itl_ms",
    "TPOT": "tpot_ms",
    "E2E": "e2e_intended_ms",
}
PERCENTS = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Run:
    """One run, read."""

    name: str
    scenario: Scenario
    columns: Columns
    span: tuple[float, float]
    invalid_because: tuple[str, ...] = ()

    @property
    def broken_share(self) -> float:
        """The share of counted requests with a broken answer."""
        counted = self.columns.where(self.columns.intended_s >= self.span[0])
        places = [place for place, word in enumerate(counted.words) if word in BROKEN]
        return float(np.isin(counted.error, places).mean()) if len(counted) else 0.0

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run from its folder.

        Raises:
            ConfigError: the folder holds no run.
        """
        for name in (SCENARIO, RECORDS):
            if not (folder / name).is_file():
                raise ConfigError(f"{folder}: holds no run: {name} is missing", param=str(folder))
        scenario, lag_rows = Scenario.load(folder / SCENARIO), read_rows(folder, LAG)
        columns = Columns.of(read_records(folder))
        summary = summarise_columns(scenario, columns, lag_rows, [])
        reasons = tuple(summary["invalid_because"])
        return cls(str(folder), scenario, columns, counted_span(scenario, lag_rows), reasons)


def compare(
    baseline: Path,
    candidate: Path,
    *,
    tolerance: float = TOLERANCE,
    force: bool = False,
    seed: int = 1,
) -> dict[str, Any]:
    """Compare the runs in two folders.

    Args:
        tolerance: the share by which a figure may be worse, 0.05 for five per cent.
        force: also compare runs that are invalid or of different workloads; `notes` says so.

    Returns:
        `figures`, each with `name`, `unit`, `baseline`, `candidate`, `ratio`, `low`, `high`,
        `verdict` (better, same, worse) and `is_sure`; `worse`, whether any is; `notes`.

    Raises:
        ConfigError: a folder holds no run, or the runs may not be compared.
    """
    if not tolerance >= 0:
        raise ConfigError(
            f"tolerance: {tolerance:g} is negative; write 0.05 for five per cent", param="tolerance"
        )
    runs = Run.read(baseline), Run.read(candidate)
    problems = list(obstacles(*runs))
    if problems and not force:
        raise ConfigError(f"{problems[0]}; --force compares all the same", param="--force")
    result = compare_runs(*runs, tolerance=tolerance, random=np.random.default_rng(seed))
    return result | {"notes": [*problems, *result["notes"]]}


def obstacles(baseline: Run, candidate: Run) -> Iterator[str]:
    """The reasons why two runs should not be compared."""
    for run in (baseline, candidate):
        if run.invalid_because:
            yield f"{run.name} is invalid: {'; '.join(run.invalid_because)}"
    for key, before, after in differences(
        workload(baseline.scenario), workload(candidate.scenario)
    ):
        yield f"the workloads differ: {key} is {before} in {baseline.name}, {after} in {candidate.name}"


def workload(scenario: Scenario) -> dict[str, Any]:
    """The parts of a scenario that make its load; classes by name, a trace without its folder."""
    document = scenario.model_dump(mode="json")
    found: dict[str, Any] = {key: document[key] for key in WORKLOAD}
    found["classes"] = {one["name"]: one for one in found["classes"]}
    if trace := found["arrivals"]["trace"]:
        found["arrivals"]["trace"] = Path(trace).name
    return found


def differences(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both; "nothing" where one has no such key."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            yield key, before, after
        return
    for name in dict.fromkeys([*before, *after]):
        dotted = f"{key}.{name}" if key else name
        if name in before and name in after:
            yield from differences(before[name], after[name], dotted)
        else:
            here, there = ("there" if name in one else "nothing" for one in (before, after))
            yield dotted, here, there


# ---- figures -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one run, and its value in each resample."""

    name: str
    unit: str
    is_high_good: bool
    value: float
    resampled: Floats


def compare_runs(
    baseline: Run, candidate: Run, *, tolerance: float, random: np.random.Generator
) -> dict[str, Any]:
    """The comparison itself. Pure."""
    count = min(_windows(run.span) for run in (baseline, candidate))
    weights = resample_blocks(count, RESAMPLES, random)
    before, after = (_figures(run, weights) for run in (baseline, candidate))
    figures, notes, is_worse = [], [], False
    for old, new in zip(before, after, strict=True):
        has = not math.isnan(old.value), not math.isnan(new.value)
        if has == (True, False):
            notes.append(
                f"{old.name}: {candidate.name} has none, {baseline.name} has; that is worse"
            )
            is_worse = True
        elif has == (False, True):
            notes.append(f"{old.name}: {baseline.name} has none")
        if has != (True, True):
            continue
        if (row := _row(old, new, tolerance)) is None:
            notes.append(f"{old.name}: too few requests, or none completed, to compare")
            continue
        figures.append(row)
        is_worse |= row["verdict"] == "worse"
    was, now = (run.broken_share for run in (baseline, candidate))
    notes += [
        f"{run.name}: {share:.2%} of its answers with status 200 were incomplete or malformed"
        for run, share in ((baseline, was), (candidate, now))
        if share
    ]
    is_worse |= now > was
    return {
        "baseline": baseline.name,
        "candidate": candidate.name,
        "tolerance": tolerance,
        "figures": figures,
        "worse": is_worse,
        "notes": notes,
    }


def _row(old: Figure, new: Figure, tolerance: float) -> dict[str, Any] | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = interval(new.resampled / old.resampled)
    if bounds is None or not old.value:
        return None
    ratio, (low, high) = new.value / old.value, bounds
    verdict, is_sure = judge(ratio, low, high, tolerance, is_high_good=old.is_high_good)
    return {
        "name": old.name,
        "unit": old.unit,
        "baseline": old.value,
        "candidate": new.value,
        "ratio": ratio,
        "low": low,
        "high": high,
        "verdict": verdict,
        "is_sure": is_sure,
    }


def judge(
    ratio: float, low: float, high: float, tolerance: float, *, is_high_good: bool
) -> tuple[str, bool]:
    """The verdict, and whether the interval settles it.

    Something has changed when the ratio leaves the tolerance and the interval does not contain 1:
    large enough to matter, and more than noise. It is settled when the whole interval says the same.
    """
    least, most = 1 - tolerance, 1 + tolerance
    if ratio > most and low > 1:
        return ("better" if is_high_good else "worse"), low > most
    if ratio < least and high < 1:
        return ("worse" if is_high_good else "better"), high < least
    return "same", least <= low and high <= most


def _windows(span: tuple[float, float]) -> int:
    return int(max(MIN_WINDOWS, min(MAX_WINDOWS, (span[1] - span[0]) // WINDOW_S)))


def _figures(run: Run, weights: Floats) -> list[Figure]:
    since_s, until_s = run.span
    count = weights.shape[1]

    def window(times: Floats) -> NDArray[np.int64]:
        places = (times - since_s) / (until_s - since_s) * count
        clipped: NDArray[np.int64] = np.clip(places.astype(np.int64), 0, count - 1)
        return clipped

    columns = run.columns
    good = columns.good(slos_of(run.scenario))
    is_ended = columns.ok & (columns.end_s >= since_s) & (columns.end_s < until_s)
    is_counted = columns.intended_s >= since_s
    return [
        _throughput(columns.where(is_ended), run.span, window, weights),
        _goodput(columns.where(is_counted), good[is_counted], window, weights),
        *_latencies(columns.where(is_counted & columns.ok), window, weights),
    ]


Window = Callable[[Floats], NDArray[np.int64]]


def _throughput(
    ended: Columns, span: tuple[float, float], window: Window, weights: Floats
) -> Figure:
    span_s, ones = span[1] - span[0], np.ones(len(ended))
    sums = resampled_sums(weights, ones, window(ended.end_s))
    return Figure("throughput", "requests/s", True, len(ended) / span_s, sums / span_s)


def _goodput(counted: Columns, good: Mask, window: Window, weights: Floats) -> Figure:
    share = float(good.mean()) if len(counted) else math.nan
    places = window(counted.intended_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = resampled_sums(weights, good.astype(np.float64), places)
        resampled = kept / resampled_sums(weights, np.ones(len(counted)), places)
    return Figure("goodput", "share", True, share, resampled)


def _latencies(answered: Columns, window: Window, weights: Floats) -> Iterator[Figure]:
    values: Mapping[str, Floats] = answered.latencies()
    places = window(answered.intended_s)
    for name, key in LATENCIES.items():
        found, where = values[key], places
        if key == "itl_ms":
            where = np.repeat(places, answered.gap_counts)
        is_there = ~np.isnan(found)
        found, where = found[is_there], where[is_there]
        resampled = resampled_percentiles(weights, found, where, PERCENTS)
        for column, percent in enumerate(PERCENTS):
            value = percentile(found, percent)
            yield Figure(f"{name} p{percent}", "ms", False, value, resampled[:, column])
