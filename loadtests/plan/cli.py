"""`comptoir plan`: from measured sweeps and a plan file to replicas, GPUs, euros, kilowatt-hours and CO2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from loadtests.plan.autoscaling import as_yaml, model_args
from loadtests.plan.model import PlanConfig
from loadtests.plan.planner import outcome
from loadtests.plan.render import Report, as_document, as_tables, notes
from loadtests.plan.sources import capacities
from loadtests.plan.sweeps import Measured, read_sweep
from loadtests.plan.uncertainty import bounds, effects, unsettled
from serving.catalogue.catalogue import Catalogue, load_catalogue
from serving.commands.output import console, show
from serving.errors import ConfigError


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The plan.")],
    sweep: Annotated[
        list[Path] | None,
        typer.Option(
            "--sweep", metavar="SWEEP.json", help="Result of `comptoir load sweep`; repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    autoscaling: Annotated[
        bool,
        typer.Option(
            "--autoscaling", help="Print only the `replicas:` of each model, for a deployment file."
        ),
    ] = False,
    measured_only: Annotated[
        bool, typer.Option("--measured-only", help="Refuse to estimate what no sweep measured.")
    ] = False,
) -> None:
    """Plan capacity: replicas, GPUs, nodes, euros, kWh and CO2e, with bounds.

    Example: comptoir plan loadtests/plan/examples/team.yaml --sweep runs/sweep-chat/sweep.json
    """
    if as_json and autoscaling:
        raise ConfigError(
            "--autoscaling: give either it or --json, not both", param="--autoscaling"
        )
    report = make(
        PlanConfig.load(file),
        [read_sweep(path) for path in sweep or ()],
        load_catalogue(),
        measured_only=measured_only,
        autoscaling=autoscaling,
    )
    if as_json:
        console.print_json(data=as_document(report))
    elif autoscaling:
        header = [f"{report.plan.name}: {report.basis}", *notes(report)]
        typer.echo(as_yaml(list(report.args), header), nl=False)
    else:
        show(as_tables(report))


def make(
    config: PlanConfig,
    sweeps: Sequence[Measured],
    catalogue: Catalogue,
    *,
    measured_only: bool = False,
    autoscaling: bool = False,
) -> Report:
    """A plan with all that is shown of it.

    Raises:
        ConfigError: something is missing or does not fit; the message says what to do.
    """
    known = capacities(config, sweeps, catalogue, measured_only=measured_only)
    now = outcome(config, known, {})
    # First: it refuses what nobody can run, before all corners of it are computed.
    args = model_args(config, known, now, autoscaling=autoscaling)
    return Report(
        plan=config,
        capacities=known,
        now=now,
        bounds=bounds(config, known, now),
        effects=effects(config, known, now),
        unsettled=unsettled(config, known, now),
        args=args,
    )
