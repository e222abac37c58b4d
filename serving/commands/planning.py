"""Plans every model of a file before anything starts: catalogue entries, licences, layouts, arguments."""

from __future__ import annotations

from serving.catalogue.catalogue import load_catalogue
from serving.deployment_file import DeploymentFile
from serving.engine import handover
from serving.engine.arguments import check_names
from serving.engine.handover import Role
from serving.engine.plan import EnginePlan, make_plan
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
    return [
        (handover.for_role(model, role), _plan(file, model, role, settings))
        for model in file.models
        for role in handover.roles(model)
    ]


def _plan(
    file: DeploymentFile, model: ModelConfig, role: Role, settings: ProcessSettings
) -> EnginePlan:
    device = settings.device if settings.device != "auto" else model.device
    if device == "auto":
        device = "gpu" if model.gpu else "cpu"
    try:
        check_names(handover.for_role(model, role).engine_args)
        return make_plan(
            model,
            load_catalogue(model.catalogue_files),
            device=device,
            gpu=model.gpu,
            cache_dir=settings.cache_dir,
            role=role,
        )
    except ConfigError as error:
        kind = "prefill replicas: " if role == "prefill" else ""
        raise type(error)(
            f"{file.path}: application {model.id!r}: {kind}{error.message}", param=error.param
        ) from None
