"""A sweep on disk: every point before the next begins, and none of a run that somebody stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtests.analysis.rate_search import Search
from loadtests.commands import run_sweep
from loadtests.generator.launch import Finished
from loadtests.run.record import Record, write_records
from loadtests.workload.scenario import Scenario
from serving.errors import ComptoirError, ConfigError

SCENARIO = Scenario.model_validate(
    {
        "name": "s",
        "classes": [{"name": "c", "model": "m", "slo": {"e2e_ms": 100}}],
        "duration_s": 21,
        "warmup_s": 1,
    }
)
CPU = run_sweep.Hardware(None, 0, 1)


def runs(limit: float, stop_at: int | None = None) -> Any:
    """Stands for real runs at a server that is fast enough up to a rate."""
    done: list[float] = []

    def run(scenario: Scenario, folder: Path, processes: int) -> Finished:
        rate = scenario.arrivals.rate_per_s
        done.append(rate)
        folder.mkdir(parents=True)
        took_s = 0.05 if rate <= limit else 0.2
        write_records(
            folder,
            [
                Record(
                    n,
                    "c",
                    "chat",
                    "m",
                    "default",
                    n,
                    intended_s=n / 10,
                    sent_s=n / 10,
                    end_s=n / 10 + took_s,
                    status=200,
                    prompt_tokens=7,
                    output_tokens=3,
                )
                for n in range(210)
            ],
        )
        return Finished(folder, {"valid": True}, was_interrupted=len(done) == stop_at)

    return run


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_sweep.report, "build_sweep", lambda folder: folder)


def test_the_points_lead_to_the_rate_and_are_left_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_sweep, "run", runs(limit=5.0))
    said: list[str] = []
    found = run_sweep.sweep(SCENARIO, tmp_path / "s", Search(1, 100), CPU, 1, said.append)
    assert found["confirmed"]
    assert 4.5 < found["rate_per_s"] <= 5.0 < found["rate_fails_per_s"]
    assert found == orjson.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert (found["input_tokens_mean"], found["output_tokens_mean"]) == (7, 3)
    assert len(said) == len(found["points"])
    with pytest.raises(ConfigError, match="holds a sweep already"):
        run_sweep.sweep(SCENARIO, tmp_path / "s", Search(1, 100), CPU, 1, said.append)


def test_stopping_a_run_stops_the_sweep_and_keeps_the_points_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_sweep, "run", runs(limit=5.0, stop_at=3))
    with pytest.raises(ComptoirError, match="the sweep was stopped"):
        run_sweep.sweep(SCENARIO, tmp_path / "s", Search(1, 100), CPU, 1, lambda text: None)
    kept = orjson.loads((tmp_path / "s" / "sweep.json").read_bytes())
    assert [one["rate_per_s"] for one in kept["points"]] == [1.0, 2.0]


def test_an_endpoint_that_answers_nothing_ends_the_sweep_at_its_first_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def run(scenario: Scenario, folder: Path, processes: int) -> Finished:
        asked.append(scenario.arrivals.rate_per_s)
        folder.mkdir(parents=True)
        failed = Record(1, "c", "chat", "m", "default", 1, intended_s=2, error="connect")
        write_records(folder, [failed])
        return Finished(folder, {"errors": {"connect": 1}, "statuses": {}})

    monkeypatch.setattr(run_sweep, "run", run)
    with pytest.raises(ComptoirError, match="answered none of the requests: 1 no connection"):
        run_sweep.sweep(SCENARIO, tmp_path / "s", Search(1, 100), CPU, 1, lambda text: None)
    assert asked == [1.0]


def test_low_rates_run_as_long_as_it_takes_to_show_the_slo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []
    stand_in = runs(limit=5.0)

    def run(scenario: Scenario, folder: Path, processes: int) -> Finished:
        asked.append((scenario.arrivals.rate_per_s, scenario.duration_s))
        return stand_in(scenario, folder, processes)

    monkeypatch.setattr(run_sweep, "run", run)
    run_sweep.sweep(SCENARIO, tmp_path / "s", Search(1, 100), CPU, 1, lambda text: None)
    durations = dict(asked)
    assert durations[1.0] > 100, "21 s of one a second would show nothing"
    assert durations[8.0] == SCENARIO.duration_s
