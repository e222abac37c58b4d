"""The needs of a deployment file's models on a cluster: plans, reduced to numbers."""

from __future__ import annotations

from collections.abc import Sequence

from serving.commands.planning import plan_models
from serving.deployment_file import DeploymentFile
from serving.engine_plan.plan import EnginePlan
from serving.errors import ConfigError
from serving.kubernetes.needs import ModelNeed
from serving.settings import ModelConfig, ProcessSettings


def model_needs(
    file: DeploymentFile, settings: ProcessSettings, gpus: Sequence[str] = ()
) -> list[ModelNeed]:
    """One per kind of replicas, in the file's order: a model with prefill replicas has two.

    Args:
        gpus: types of GPU that the site has; a model that names none takes the only one.

    Raises:
        ConfigError: a model is wrong, or it is not clear where it runs.
    """
    pairs = plan_models(file, settings)
    needs = [_need(file, model, plan, gpus) for model, plan in pairs]
    has_gpus = any(need.gpu for need in needs)
    for model, _ in pairs:
        # On a cluster with GPUs `auto` means GPU, and nobody has counted it.
        if has_gpus and model.device == "auto" and model.gpu is None:
            raise ConfigError(
                f"{file.path}: application {model.id!r}: device: must be cpu or gpu where other models "
                "have GPUs",
                param="device",
            )
    return needs


def _need(
    file: DeploymentFile, model: ModelConfig, plan: EnginePlan, gpus: Sequence[str]
) -> ModelNeed:
    kind = plan.accelerator_type
    if plan.device == "gpu" and kind is None:
        if len(gpus) != 1:
            raise ConfigError(
                f"{file.path}: application {model.id!r}: gpu: name the type, or give --gpu once",
                param="gpu",
            )
        kind = gpus[0]
    return ModelNeed(
        id=model.id,
        gpu=kind.lower() if kind else None,
        gpus_per_rank=plan.parallel.gpus_per_rank if plan.device == "gpu" else 0,
        num_cpus=plan.num_cpus,
        replicas_min=model.replicas.min,
        replicas_max=model.replicas.max,
        drain_timeout_s=plan.drain_timeout_s,
        ranks=plan.parallel.data,
        gpus_per_node=plan.gpus_per_node,
    )
