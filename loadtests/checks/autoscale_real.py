"""Holds the autoscaling simulator against real engines: one run, and the same arrivals simulated.

    python -m loadtests.checks.autoscale_real --out runs/autoscale --picture runs/autoscale.png
    python -m loadtests.checks.autoscale_real --again runs/autoscale       # only simulate, and print

Starts checks/autoscaling/engines.yaml, sends a load that steps up and down again, and reads decisions and
replicas off the gateway's metrics. What a simulated replica can do is measured in the run itself.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer

from loadtests.answers.ends import broken_in_words
from loadtests.checks.autoscaling import comparison_picture
from loadtests.checks.autoscaling.comparison import Step, changes_of, figures, replay, table
from loadtests.checks.autoscaling.measured import outcome_of, replica_model, start_times_s
from loadtests.checks.stack import ChaosError, Stack
from loadtests.generator import launch
from loadtests.run.folder import BEGUN, read_note, read_rows
from loadtests.run.record import METRICS, SCENARIO, read_records
from loadtests.simulation.autoscaling import picture
from loadtests.simulation.autoscaling.replicas import Outcome, ReplicaModel
from loadtests.workload.scenario import (
    ArrivalsConfig,
    ClassConfig,
    Scenario,
    TargetConfig,
    TokensConfig,
)
from serving.commands.output import run as run_command
from serving.commands.output import show
from serving.deployment_file import DeploymentFile, load_deployment_file
from serving.errors import ComptoirError, ConfigError
from serving.settings import ProcessSettings

ENGINES = Path(__file__).parent / "autoscaling" / "engines.yaml"
MODEL = "qwen3"
# A replica of eight slots serves three answers a second of 48 tokens, a step of 50 ms each.
LOW_PER_S, HIGH_PER_S = 0.9, 7.2
TOKENS = 48
PART_S = 35.0
# The load in parts of equal length: one low, two high, three low.
PARTS = (LOW_PER_S, HIGH_PER_S, HIGH_PER_S, LOW_PER_S, LOW_PER_S, LOW_PER_S)
# Answers that are late in a simulation may be so by its seed: when replicas report.
SEEDS = range(1, 21)
READY = "ready.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def scenario(url: str) -> Scenario:
    """The load of the run."""
    return Scenario(
        name="autoscale-real",
        target=TargetConfig(url=url, tokenizers={MODEL: f"tiny:{MODEL}"}, scrape_s=0.25),
        classes=(
            ClassConfig(
                name="chat",
                model=MODEL,
                input_tokens=TokensConfig(mean=48),
                output_tokens=TokensConfig(mean=TOKENS),
            ),
        ),
        arrivals=ArrivalsConfig(kind="steps", rates_per_s=PARTS),
        duration_s=PART_S * len(PARTS),
        warmup_s=0.0,
    )


def step_of(load: Scenario) -> Step:
    """Where the load of the run steps up and down."""
    rates = load.arrivals.rates_per_s
    part_s, high = load.duration_s / len(rates), max(rates)
    begin_s = rates.index(high) * part_s
    return Step(rates[0], high, begin_s, begin_s + rates.count(high) * part_s, load.duration_s)


def run(folder: Path) -> None:
    """Start the stack, send the load, stop the stack; the load generator leaves the run in the folder.

    Raises:
        ComptoirError: the stack or the load generator failed.
    """
    print("starting the engines ...", flush=True)
    with Stack(ENGINES, MODEL) as stack:
        try:
            asyncio.run(stack.ready())
        except ChaosError as error:
            raise ComptoirError(str(error)) from None
        ready_s = time.time()
        load = scenario(stack.url)
        print(f"sending {load.duration_s:.0f} s of load ...", flush=True)
        finished = launch.run(load, folder)
    if finished.was_interrupted:
        raise ComptoirError("the run was stopped before its end: there is nothing to compare")
    if finished.summary["broken"]:
        raise ComptoirError(f"some answers were not valid: {broken_in_words(finished.summary)}")
    (folder / READY).write_bytes(orjson.dumps({"wall_s": ready_s}))
    for reason in finished.summary["invalid_because"]:
        print(f"note: {reason}")


def deployed() -> DeploymentFile:
    """What was started."""
    return load_deployment_file(ENGINES, ProcessSettings.load())


class Comparison:
    """A run that is over, and the same arrivals simulated once for each seed."""

    def __init__(self, folder: Path) -> None:
        load, rows = Scenario.load(folder / SCENARIO), read_rows(folder, METRICS)
        records = sorted(read_records(folder), key=lambda one: one.intended_s)
        file = deployed()
        model = next(one for one in file.models if one.id == MODEL)
        self.step = step_of(load)
        self.objective_s = model.replicas.ttft_objective_s
        self.real = outcome_of(records, rows, load.duration_s)
        self.replica: ReplicaModel = replica_model(
            records,
            rows,
            self.real,
            slots=model.engine_args["max_num_seqs"],
            gateway_limit=file.gateway.admission.max_open_per_replica,
            step_s=self.step.begin_s,
        )
        begun, ready = read_note(folder, BEGUN) or {}, read_note(folder, READY) or {}
        idle_s = max(0.0, begun.get("wall_s", 0.0) - ready.get("wall_s", 0.0)) if ready else 0.0
        arrivals = [one.arrived_s for one in self.real.requests]
        self.simulated: list[Outcome] = [
            replay(
                arrivals,
                self.replica,
                model.replicas,
                duration_s=load.duration_s,
                idle_s=idle_s,
                seed=seed,
            )
            for seed in SEEDS
        ]

    def print(self) -> None:
        """What was measured of a replica, the table, and the changes one by one."""
        one, starts = self.replica, start_times_s(self.real)
        print(
            f"a replica: {one.slots} slots, a token every {1000 * one.itl_s:.1f} ms and "
            f"{1000 * one.itl_per_request_s:.1f} ms a request, {1000 * one.prefill_s:.0f} ms before the "
            f"first; starts took {', '.join(f'{start:.1f}' for start in starts)} s"
        )
        real = figures(self.real, self.step, self.objective_s)
        simulated = [figures(each, self.step, self.objective_s) for each in self.simulated]
        show(table(real, simulated))
        print(f"real:      {changes_of(self.real)}")
        print(f"simulated: {changes_of(self.simulated[0])}")

    def draw(self, path: Path) -> None:
        """The run over the first simulation."""
        played = {"real": self.real, "simulated": self.simulated[0]}
        comparison_picture.draw(played, self.step, self.objective_s, path)


@app.command()
def autoscale_real(
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the run in this folder.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Only simulate an earlier run.")
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option("--picture", metavar="PATH", help="File for a picture of both (PNG, SVG)."),
    ] = None,
) -> None:
    """Hold the autoscaling simulator against real engines: one run, and the same arrivals simulated.

    Example: python -m loadtests.checks.autoscale_real --out runs/autoscale --picture runs/autoscale.png
    """
    if out is not None and again is not None:
        raise ConfigError("--again: give either it or --out, not both", param="--again")
    if draw is not None and not picture.is_possible():
        raise ConfigError("--picture: it needs matplotlib: pip install matplotlib")
    with tempfile.TemporaryDirectory(prefix="comptoir-autoscale-") as scratch:
        folder = again or out or Path(scratch) / "run"
        if again is None:
            run(folder)
        compared = Comparison(folder)
    compared.print()
    if draw is not None:
        compared.draw(draw)


if __name__ == "__main__":
    run_command(app)
