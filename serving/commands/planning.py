"""Plans every model of a file before anything starts: catalogue entries, licences, layouts, arguments."""

from __future__ import annotations

from serving.catalogue.catalogue import load_catalogue
from serving.deployment_file import DeploymentFile
from serving.engine.arguments import check_names
from serving.engine.plan import EnginePlan, make_plan
from serving.errors import ConfigError
from serving.settings import ModelConfig, ProcessSettings


def plan_models(file: DeploymentFile, settings: ProcessSettings) -> list[EnginePlan]:
    """One plan per model, in the file's order.

    Raises:
        ConfigError: an entry is unknown, a licence forbids it, no layout fits, the installed vLLM has no such
            argument; the message names the file and the application.
    """
    return [_plan(file, model, settings) for model in file.models]


def _plan(file: DeploymentFile, model: ModelConfig, settings: ProcessSettings) -> EnginePlan:
    device = settings.device if settings.device != "auto" else model.device
    if device == "auto":
        device = "gpu" if model.gpu else "cpu"
    try:
        check_names(model.engine_args)
        return make_plan(
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
