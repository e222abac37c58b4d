"""`comptoir check`: is this file right? Without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from serving.commands.output import console, errors, say
from serving.commands.planning import plan_models
from serving.deployment_file import DeploymentFile, load_deployment_file
from serving.engine.plan import TINY_PREFIX, EnginePlan
from serving.errors import ComptoirError, ConfigError
from serving.routing.models import unknown_models
from serving.settings import ProcessSettings


def check(
    files: Annotated[list[Path], typer.Argument(help="Serve config files, as in deployments/.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings fail too: for production.")
    ] = False,
) -> None:
    """Check files: keys, values, catalogue entries, licences, GPU layouts, and Ray Serve's own schema.

    Example: comptoir check deployments/node-8xh200.yaml
    """
    settings = ProcessSettings.load()
    failed = warned = False
    for path in files:
        try:
            file = load_deployment_file(path, settings)
            _check_against_serve(file)
            _check_routing(file)
            plans = plan_models(file, settings)
        except ComptoirError as error:
            errors.print(f"[bold red]wrong[/bold red] {escape(str(path))}", soft_wrap=True)
            errors.print(f"  {error.message}", markup=False, soft_wrap=True)
            failed = True
            continue
        say(f"[bold green]right[/bold green] {escape(str(path))}")
        console.print(_table(plans))
        for warning in _warnings(file, plans):
            errors.print("  [yellow]warning:[/yellow]", warning, soft_wrap=True)
            warned = True
    if failed or (strict and warned):
        raise typer.Exit(2)


def _check_against_serve(file: DeploymentFile) -> None:
    # Half a second, so not at the top.
    from pydantic import ValidationError
    from ray.serve.schema import ServeDeploySchema

    try:
        ServeDeploySchema.model_validate(file.document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file.path}: {key}: {first['msg']}", param=key) from None


def _check_routing(file: DeploymentFile) -> None:
    names = {name for model in file.models for name in (model.id, *model.aliases, *model.adapters)}
    for problem in unknown_models(file.gateway.routing, names):
        raise ConfigError(f"{file.path}: {problem}", param="routing")


def _warnings(file: DeploymentFile, plans: list[EnginePlan]) -> list[str]:
    warnings = []
    for model, plan in zip(file.models, plans, strict=True):
        if model.entry.startswith(TINY_PREFIX):
            continue
        if plan.card["revision"] is None and model.source is None:
            warnings.append(
                f"{model.id}: no revision: weights and templates may change under you; set "
                "`revision` to a commit of the repository before production use"
            )
    if not file.gateway.keys:
        warnings.append("no API keys: fine on loopback, `comptoir keys new NAME` makes one")
    return warnings


def _table(plans: list[EnginePlan]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("  model", "runs", "on", "licence"):
        table.add_column(title)
    for plan in plans:
        on = "CPU" if plan.device == "cpu" else f"{plan.gpus} x {plan.accelerator_type or 'GPU'}"
        table.add_row(f"  {plan.model_id}", plan.source, on, str(plan.card["licence"]))
    return table
