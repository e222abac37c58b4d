"""`comptoir check`: validate a file without starting anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from serving.catalogue import tiny
from serving.catalogue.catalogue import load_catalogue
from serving.commands.output import errors, note, say, show
from serving.commands.planning import plan_models
from serving.deployment_file import GATEWAY_BUILDER, DeploymentFile, load_deployment_file
from serving.engine_plan import arguments, lora
from serving.engine_plan.advice import advice
from serving.engine_plan.hosted import Hosted, describe
from serving.engine_plan.plan import EnginePlan
from serving.errors import ComptoirError, ConfigError
from serving.routing.unknown_models import unknown_models
from serving.settings import ModelConfig, ProcessSettings


def check(
    files: Annotated[list[Path], typer.Argument(help="Serve config files, as in deployments/.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on warnings, too: for production.")
    ] = False,
    engine: Annotated[
        bool,
        typer.Option("--engine", help="Let vLLM check the engine arguments, too: takes 10 s more."),
    ] = False,
) -> None:
    """Check files: keys, values, catalogue entries, licences, GPU layouts, and Ray Serve's own schema.

    Names of engine arguments are held against the installed vLLM, and how a model is spread against its
    heads, layers and memory (docs/large-models.md); a hint names something better and never fails.
    With --engine, vLLM itself looks at values and combinations, without GPU and weights.

    Example: comptoir check --engine deployments/node-8xh200.yaml
    """
    settings = ProcessSettings.load()
    failed = warned = False
    for path in files:
        try:
            file = load_deployment_file(path, settings)
            _check_against_serve(file)
            _check_routing(file)
            pairs = plan_models(file, settings)
            plans = [plan for _, plan in pairs]
            views = [_view(model, plan) for model, plan in pairs]
            seen = _ask_engine(file, plans, views) if engine else None
        except ComptoirError as error:
            errors.print(f"[bold red]invalid[/bold red] {escape(str(path))}", soft_wrap=True)
            errors.print(f"  {error.message}", markup=False, soft_wrap=True)
            failed = True
            continue
        say(f"[bold green]ok[/bold green] {escape(str(path))}")
        show(_table(plans))
        if seen is not None:
            say(f"  {seen}")
        for warning in _warnings(file, pairs, views):
            errors.print("  [yellow]warning:[/yellow]", escape(warning), soft_wrap=True)
            warned = True
        for text in _advice(views, "hint"):
            errors.print("  [cyan]hint:[/cyan]", escape(text), soft_wrap=True)
    if strict and warned:
        note("--strict: warnings fail")
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


def _view(model: ModelConfig, plan: EnginePlan) -> Hosted:
    is_tiny = model.entry.startswith(tiny.ID_PREFIX)
    spec = None if is_tiny else load_catalogue(model.catalogue_files).get(model.entry)
    # A machine that checks need not be a node: adapters that are not here are left to the nodes.
    lora.check_files(plan.engine_args, only_present=True)
    return describe(model, spec, plan.engine_args, device=plan.device, gpu=model.gpu)


def _ask_engine(file: DeploymentFile, plans: list[EnginePlan], views: list[Hosted]) -> str:
    """Have vLLM check the arguments; report how far it could look."""
    if not arguments.is_installed():
        raise ConfigError("--engine: vLLM is not installed here (README, Install)", param="engine")
    questions = [arguments.question(plan, one) for plan, one in zip(plans, views, strict=True)]
    findings = arguments.ask(questions)
    for finding in findings:
        if finding.problem is not None:
            key = f"engine_args.{finding.key}" if finding.key else "engine_args"
            raise ConfigError(
                f"{file.path}: application {finding.model_id!r}: {key}: vLLM refuses it: {finding.problem}",
                param=key,
            )
    names = {finding.model_id for finding in findings}
    deep = names - {finding.model_id for finding in findings if finding.depth != "config"}
    return f"vLLM takes the arguments of {len(names)} models; it built the configuration of {len(deep)}"


def _advice(views: list[Hosted], level: str) -> list[str]:
    texts = (
        f"{one.model_id}: {each.text}"
        for one in views
        for each in advice(one)
        if each.level == level
    )
    # Prefill replicas are often spread as the model's own.
    return list(dict.fromkeys(texts))


def _warnings(
    file: DeploymentFile, pairs: list[tuple[ModelConfig, EnginePlan]], views: list[Hosted]
) -> list[str]:
    warnings = _advice(views, "warning")
    for model, plan in pairs:
        if model.entry.startswith(tiny.ID_PREFIX) or plan.role == "prefill":
            continue
        if plan.card.revision is None and model.source is None:
            warnings.append(
                f"{model.id}: no revision: weights and templates may change under you; set "
                "`revision` to a commit of the repository before production use"
            )
    names = {name for model in file.models for name in (model.id, *model.adapters)}
    for key in file.gateway.keys:
        for unknown in sorted({*key.models} - names - {"*"}):
            warnings.append(
                f"keys.{key.name}.models: there is no model '{unknown}' in this file; available: "
                + ", ".join(sorted(names))
            )
    if file.gateway.surge_percent and _takes_places(file.document):
        warnings.append(
            "gateway: each takes a place of its own (`resources`), and a changed one starts before an old "
            "one leaves: offer one place more than `replicas`, or set surge_percent to 0"
        )
    if file.gateway.keys and not any("inference" in key.scopes for key in file.gateway.keys):
        warnings.append(
            "keys: none has the scope inference, so nobody can ask a model: "
            "`comptoir keys new NAME` makes one that has it"
        )
    if not file.gateway.keys:
        warnings.append("no API keys: fine on loopback, `comptoir keys new NAME` makes one")
    return warnings


def _takes_places(document: Mapping[str, Any]) -> bool:
    """Whether the file gives gateways a resource that limits their number."""
    return any(
        (deployment.get("ray_actor_options") or {}).get("resources")
        for application in document["applications"]
        if application["import_path"] == GATEWAY_BUILDER
        for deployment in application.get("deployments") or ()
    )


def _table(plans: list[EnginePlan]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("  model", "runs", "on", "licence"):
        table.add_column(title)
    for plan in plans:
        spread_over = f" ({plan.parallel.words})" if plan.parallel.gpus > 1 else ""
        on = "CPU" if plan.device == "cpu" else f"{plan.gpus} x {plan.accelerator_type or 'GPU'}"
        on += spread_over
        kind = " (prefill)" if plan.role == "prefill" else ""
        table.add_row(f"  {plan.model_id}{kind}", plan.source, on, str(plan.card.licence))
    return table
