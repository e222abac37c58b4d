"""The comparison of a real run with the simulator: both are measured alike, and what is measured is right."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from loadtests.checks import autoscale_real
from loadtests.checks.autoscaling import comparison_picture
from loadtests.checks.autoscaling.comparison import Figures, Step, figures, replay, table
from loadtests.checks.autoscaling.measured import (
    changes,
    integral,
    outcome_of,
    pace,
    replica_model,
    start_times_s,
)
from loadtests.run.folder import BEGUN
from loadtests.run.record import METRICS, RECORDS, SCENARIO, Record
from loadtests.simulation.autoscaling.replicas import Outcome, ReplicaModel, Request
from serving.commands.output import as_lines
from serving.config.autoscaling import AutoscalingConfig
from serving.errors import ComptoirError

STEP = Step(low_per_s=1.0, high_per_s=8.0, begin_s=10.0, end_s=40.0, duration_s=60.0)


def row(t_s: float, wanted: int, running: int, leaving: int = 0, ended: int = 0) -> dict[str, Any]:
    name = "comptoir_replicas"
    values = {
        f'{name}_wanted{{model="qwen3"}}': float(wanted),
        f'{name}{{model="qwen3"}}': float(running),
        f'{name}_by_state{{model="qwen3",state="RUNNING"}}': float(running),
        f'{name}_by_state{{model="qwen3",state="STARTING"}}': float(wanted - running),
        f'{name}_by_state{{model="qwen3",state="STOPPING"}}': float(leaving),
        f'{name}_by_state{{model="qwen3",state="STOPPED"}}': float(ended),
        'comptoir_engine_start_seconds{model="qwen3",replica="a"}': 12.5,
    }
    return {"t_s": t_s, "source": "gateway", "values": values}


ROWS = [row(0.2, 1, 1), row(14.0, 2, 1), row(30.0, 2, 2), row(50.0, 1, 1, 1), row(55.0, 1, 1, 0, 1)]


def record(at_s: float, first_s: float = 0.1, tokens: int = 11, gap_s: float = 0.1) -> Record:
    """A request whose first token came after `first_s`, and the others `gap_s` apart."""
    return Record(
        number=0,
        class_name="chat",
        kind="chat",
        model="qwen3",
        tenant="default",
        intended_s=at_s,
        sent_s=at_s,
        first_s=at_s + first_s,
        end_s=at_s + first_s + gap_s * (tokens - 1),
        status=200,
        output_tokens=tokens,
        asked_output=tokens,
        gaps_ms=[1000 * gap_s] * (tokens - 1),
    )


# ---- a real run in the simulator's terms -------------------------------------------------------------


def test_a_run_has_the_form_of_a_simulated_one() -> None:
    outcome = outcome_of([record(20.0, 3.0), record(1.0)], ROWS, 60.0)
    assert outcome.targets == [(0.0, 1), (14.0, 2), (50.0, 1)]
    assert outcome.running == [(0.0, 1), (30.0, 2), (50.0, 1)]
    assert [(one.arrived_s, round(one.ttft_s, 3)) for one in outcome.requests] == [
        (1.0, 0.1),
        (20.0, 3.0),
    ]


def test_replicas_cost_from_the_decision_until_they_have_ended() -> None:
    assert outcome_of([], ROWS, 60.0).replica_s == pytest.approx(60.0 + (55.0 - 14.0))


def test_scrapes_before_and_after_the_load_do_not_count() -> None:
    rows = [row(-3.0, 3, 3), *ROWS, row(61.0, 3, 3)]
    assert outcome_of([], rows, 60.0) == outcome_of([], ROWS, 60.0)


def test_a_request_that_failed_never_got_its_first_token() -> None:
    failed = record(1.0)
    failed.error = "stream"
    assert outcome_of([failed], ROWS, 60.0).requests[0].ttft_s == math.inf


def test_a_run_without_metrics_is_refused() -> None:
    with pytest.raises(ComptoirError, match="no metrics"):
        outcome_of([record(1.0)], [], 60.0)


def test_other_metrics_whose_names_begin_alike_are_not_counted() -> None:
    assert changes(ROWS, "comptoir_replicas")[-1] == (50.0, 1)


def test_a_count_holds_until_the_next_one() -> None:
    assert integral([], 10.0) == 0.0
    assert integral([(1.0, 2.0), (4.0, 3.0)], 10.0) == pytest.approx(4 * 2 + 6 * 3)


def test_a_start_lasts_from_the_decision_until_the_replica_serves() -> None:
    outcome = Outcome([], [(0.0, 1), (10.0, 3)], [(0.0, 1), (30.0, 2), (34.0, 3)], 0.0)
    assert start_times_s(outcome) == [20.0, 24.0]


# ---- what a replica can do ---------------------------------------------------------------------------


def test_requests_without_company_show_gap_and_prefill() -> None:
    alone = [record(5.0 * number, first_s=0.25, gap_s=0.1) for number in range(6)]
    found = pace(alone)
    assert found.itl_s == pytest.approx(0.1)
    assert found.itl_per_request_s == 0.0
    assert found.prefill_s == pytest.approx(0.15)


def test_requests_in_company_show_what_company_costs() -> None:
    alone = [record(10.0 * number, gap_s=0.10) for number in range(4)]
    pairs = [record(100.0 + 10.0 * number, gap_s=0.13) for number in range(4) for _ in range(2)]
    found = pace(alone + pairs)
    assert found.itl_s == pytest.approx(0.07, rel=0.01)
    assert found.itl_per_request_s == pytest.approx(0.03, rel=0.01)


def test_company_that_seems_to_help_costs_nothing() -> None:
    alone = [record(10.0 * number, gap_s=0.12) for number in range(4)]
    pairs = [record(100.0 + 10.0 * number, gap_s=0.10) for number in range(4) for _ in range(2)]
    found = pace(alone + pairs)
    assert found.itl_per_request_s == 0.0
    assert found.itl_s == pytest.approx((4 * 0.12 + 8 * 0.10) / 12)


def test_too_few_requests_say_nothing() -> None:
    with pytest.raises(ComptoirError, match="3 requests before the step"):
        pace([record(1.0), record(3.0), record(5.0)])


def measured(records: list[Record]) -> ReplicaModel:
    outcome = outcome_of(records, ROWS, 60.0)
    return replica_model(records, ROWS, outcome, slots=4, gateway_limit=6, step_s=STEP.begin_s)


def test_speed_is_measured_before_the_step_and_starts_in_it() -> None:
    calm = [record(1.5 * number, gap_s=0.1) for number in range(6)]
    busy = [record(20.0 + 1.5 * number, gap_s=0.9) for number in range(6)]
    model = measured(calm + busy)
    assert model.itl_s == pytest.approx(0.1)
    assert (model.cold_start_s, model.reported_start_s) == (16.0, 12.5)
    assert (model.slots, model.gateway_limit, model.mean_tokens) == (4, 6, 11.0)


def test_a_run_in_which_nothing_started_is_refused() -> None:
    records = [record(1.5 * number) for number in range(6)]
    outcome = outcome_of(records, ROWS[:1], 60.0)
    with pytest.raises(ComptoirError, match="no replica began"):
        replica_model(records, ROWS, outcome, slots=4, gateway_limit=6, step_s=10.0)


# ---- figures -----------------------------------------------------------------------------------------


def test_figures_count_from_the_step() -> None:
    requests = [Request(5.0, 1.0, 9.0), *(Request(20.0 + n, 1.0, float(n)) for n in range(5))]
    outcome = Outcome(
        requests,
        targets=[(0.0, 1), (13.0, 2), (15.0, 3), (52.0, 2)],
        running=[(0.0, 1), (30.0, 2), (34.0, 3), (52.0, 2)],
        replica_s=100.0,
    )
    assert figures(outcome, STEP, ttft_objective_s=2.0) == Figures(
        decision_s=3.0,
        second_serves_s=20.0,
        all_serve_s=24.0,
        most_replicas=3,
        changes=3,
        gives_up_s=12.0,
        replica_s=100.0,
        lost_s=3,
        ttft_p50_s=2.0,
        ttft_p99_s=pytest.approx(3.96),
    )


def test_what_never_happened_is_infinite() -> None:
    found = figures(Outcome([], [(0.0, 1)], [(0.0, 1)], 60.0), STEP, ttft_objective_s=2.0)
    assert (found.decision_s, found.second_serves_s, found.gives_up_s) == (math.inf,) * 3


def test_the_table_has_the_median_and_the_range_of_the_simulations() -> None:
    real = figures(Outcome([], [(0.0, 1)], [(0.0, 1)], 60.0), STEP, ttft_objective_s=2.0)
    simulated = [replace(real, decision_s=value) for value in (5.5, 4.0, 3.0)]
    lines = as_lines(table(real, simulated))
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[-4:] == ["never", "4", "3", "5.5"]


# ---- the simulation of it ----------------------------------------------------------------------------

CONFIG = AutoscalingConfig(min=1, max=3, target_requests=4, hold_s=20)
MODEL = replace(
    ReplicaModel(), slots=4, gateway_limit=6, mean_tokens=48.0, token_spread=0.0, cold_start_s=8.0
)


def replayed(arrivals: list[float], idle_s: float) -> Outcome:
    return replay(arrivals, MODEL, CONFIG, duration_s=60.0, idle_s=idle_s, seed=1)


def test_time_before_the_load_is_taken_off_again() -> None:
    arrivals = list(STEP.trace.arrivals(1.0, seed=1))
    outcome = replayed(arrivals, idle_s=30.0)
    assert [one.arrived_s for one in outcome.requests] == pytest.approx(arrivals)
    assert outcome.targets[0] == (0.0, 1)
    assert all(at_s >= STEP.begin_s for at_s, _ in outcome.targets[1:])
    assert replayed([], idle_s=30.0).replica_s == pytest.approx(60.0)


# ---- the command -------------------------------------------------------------------------------------


def test_requests_wait_from_their_arrival_to_their_first_token() -> None:
    outcome = Outcome([Request(1.5, 1.0, 2.0), Request(3.0, 1.0, math.inf)], [], [], 0.0)
    assert comparison_picture.waiting(outcome, [1, 2, 3, 4, 5]) == [0, 1, 2, 1, 1]


def test_the_step_is_read_off_the_load() -> None:
    step = autoscale_real.step_of(autoscale_real.scenario("http://127.0.0.1:1"))
    part_s = autoscale_real.PART_S
    assert (step.begin_s, step.end_s, step.duration_s) == (part_s, 3 * part_s, 6 * part_s)
    loads = [step.trace.load(at_s) for at_s in (part_s - 1, part_s, 3 * part_s - 1, 3 * part_s)]
    low, high = autoscale_real.LOW_PER_S, autoscale_real.HIGH_PER_S
    assert loads == [low, high, high, low]


def test_the_engines_are_slowed_down_and_may_be_given_company() -> None:
    (model,) = autoscale_real.deployed().models
    assert model.id == autoscale_real.MODEL
    assert model.engine_args["scheduler_cls"] == "loadtests.checks.autoscaling.paced.PacedScheduler"
    assert model.replicas.min < model.replicas.max


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """A folder as the load generator leaves it."""
    load = autoscale_real.scenario("http://127.0.0.1:1")
    (tmp_path / SCENARIO).write_text(load.model_dump_json())
    records = [record(1.5 * number) for number in range(20)] + [record(40.0, 3.0)]
    (tmp_path / RECORDS).write_bytes(b"".join(one.as_line() for one in records))
    rows = [row(0.2, 1, 1), row(40.0, 2, 1), row(60.0, 2, 2)]
    (tmp_path / METRICS).write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in rows))
    (tmp_path / BEGUN).write_bytes(orjson.dumps({"wall_s": 1005.0}))
    (tmp_path / autoscale_real.READY).write_bytes(orjson.dumps({"wall_s": 1000.0}))
    return tmp_path


def test_the_command_compares_a_run_that_is_there(finished_run: Path) -> None:
    ended = CliRunner().invoke(autoscale_real.app, ["--again", str(finished_run)])
    assert ended.exit_code == 0
    assert "decision after the step, s" in ended.stdout
    assert "real:      1 at 0 s, 2 at 40 s" in ended.stdout


def test_the_command_draws_both(finished_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "both.png"
    options = ["--again", str(finished_run), "--picture", str(path)]
    assert CliRunner().invoke(autoscale_real.app, options).exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
