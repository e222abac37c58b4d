"""Plans every model of a file before anything starts: catalogue entries, licences, layouts, arguments."""

from __future__ import annotations

from serving.catalogue.catalogue import load_catalogue
from serving.deployment_file import DeploymentFile
from serving.engine_plan import disaggregation
from serving.engine_plan.arguments import check_names
from serving.engine_plan.plan import EnginePlan
from serving.engine_plan.planner import make_plans
from serving.errors import ConfigError
from serving.settings import ModelConfig, ProcessSettings


def plan_models(
    file: DeploymentFile, settings: ProcessSettings
) -> list[tuple[ModelConfig, EnginePlan]]:
    """One plan per kind of replicas, each with its configuration, in the file's order.

    Models with prefill replicas have two kinds, their own first.

    Raises:
        ConfigError: an entry is unknown, a licence forbids it, no layout fits, the installed vLLM has no such
            argument; the message names the file and the application.
    """
    return [pair for model in file.models for pair in _plans(file, model, settings)]


def _plans(
    file: DeploymentFile, model: ModelConfig, settings: ProcessSettings
) -> list[tuple[ModelConfig, EnginePlan]]:
    device = settings.device if settings.device != "auto" else model.device
    if device == "auto":
        device = "gpu" if model.gpu else "cpu"
    try:
        for role in disaggregation.roles(model):
            check_names(disaggregation.for_role(model, role).engine_args)
        plans = make_plans(
            model,
            load_catalogue(model.catalogue_files),
            device=device,
            gpu=model.gpu,
            cache_dir=settings.cache_dir,
        )
    except ConfigError as error:
        raise type(error)(
            f"{file.path}: application {model.id!r}: {error.message}", param=error.param
        ) from None
    return [(disaggregation.for_role(model, plan.role), plan) for plan in plans]
