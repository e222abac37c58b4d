"""Composition: `build_gateway(args)` and `build_model(args)` return Ray Serve applications.

These are the import paths of the Serve config files in deployments/.
"""

from __future__ import annotations

from typing import Any, Literal

import ray
from ray import serve
from ray.serve.config import (
    AutoscalingConfig,
    AutoscalingPolicy,
    GangSchedulingConfig,
    RequestRouterConfig,
)

from serving.catalogue.catalogue import load_catalogue
from serving.catalogue.gpus import GPUS
from serving.config.rerouting import GATEWAY_DEPLOYMENT, user_config
from serving.engine.replica import ModelReplica
from serving.engine_plan import disaggregation
from serving.engine_plan.plan import EnginePlan
from serving.engine_plan.planner import make_plans
from serving.gateway.replica import GatewayReplica
from serving.replica_protocol import MODEL_DEPLOYMENT, PREFILL_DEPLOYMENT
from serving.settings import GatewayConfig, ModelConfig, ProcessSettings

HEALTH_CHECK_PERIOD_S = 1.0
ROUTING_STATS_PERIOD_S = 0.5
GATEWAY_STATS_PERIOD_S = 1.0
# Beyond the drain itself: late arrivals, the engine's own shutdown.
SHUTDOWN_MARGIN_S = 30.0


def build_gateway(args: dict[str, Any]) -> serve.Application:
    """The endpoint, as one Serve application without a Serve route: it listens for itself.

    Raises:
        ConfigError: a key of `args` is invalid.
    """
    config = GatewayConfig.from_args(args, ProcessSettings.load())
    deployment = serve.deployment(GatewayReplica, **gateway_options(config))
    # `config.keys` holds those of `keys_file`, too; what of it is in force changes with the file.
    in_args = GatewayConfig.model_validate({"keys": args.get("keys") or ()}).keys
    return deployment.bind(config, in_args)


def gateway_options(config: GatewayConfig) -> dict[str, Any]:
    """Ray Serve's options for the gateways."""
    return {
        "name": GATEWAY_DEPLOYMENT,
        "num_replicas": config.replicas,
        # Always: only then does Serve give it back when a rollout's override is taken away.
        "user_config": user_config(config.routing),
        "ray_actor_options": {"num_cpus": 0.1},
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        # Serve waits for calls of handles first, and there are none.
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": config.lame_duck_s
        + config.drain_timeout_s
        + SHUTDOWN_MARGIN_S,
        # Serve's own default stops the only gateway before the changed one listens.
        "max_surge_percent": config.surge_percent,
        # Each gateway knows what the others have asked models: a rollout looks at one of them only.
        "request_router_config": RequestRouterConfig(
            request_router_class="serving.discovery.listening_router_ray.ListeningRouter",
            request_routing_stats_period_s=GATEWAY_STATS_PERIOD_S,
        ),
    }


def build_model(args: dict[str, Any]) -> serve.Application:
    """One model, as one Serve application without a route: its replicas, and prefill replicas if it has some.

    Raises:
        ConfigError, CatalogueError, LicenceError: the problem and the remedy.
    """
    process = ProcessSettings.load()
    config = ModelConfig.from_args(args)
    device, gpu = _hardware(config, process)
    plan, *prefill = make_plans(
        config,
        load_catalogue(config.catalogue_files),
        device=device,
        gpu=gpu,
        cache_dir=process.cache_dir,
    )
    deployment = serve.deployment(ModelReplica, **deployment_options(config, plan))
    bound = [
        serve.deployment(ModelReplica, **deployment_options(config, one)).bind(one)
        for one in prefill
    ]
    return deployment.bind(plan, *bound)


def deployment_options(config: ModelConfig, plan: EnginePlan) -> dict[str, Any]:
    """Ray Serve's options for the deployment of a plan."""
    replicas = disaggregation.for_role(config, plan.role).replicas
    options: dict[str, Any] = {
        "name": PREFILL_DEPLOYMENT if plan.role == "prefill" else MODEL_DEPLOYMENT,
        "max_ongoing_requests": 1000,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": 10.0,
        "graceful_shutdown_wait_loop_s": 0.1,
        "graceful_shutdown_timeout_s": plan.drain_timeout_s + SHUTDOWN_MARGIN_S,
        # Serve's own default stops a model's only replica before the changed one starts.
        "max_surge_percent": replicas.surge_percent,
        "request_router_config": RequestRouterConfig(
            request_router_class="serving.discovery.listening_router_ray.ListeningRouter",
            request_router_kwargs={"card": plan.card.encode()},
            request_routing_stats_period_s=ROUTING_STATS_PERIOD_S,
        ),
        "ray_actor_options": {"num_cpus": plan.num_cpus},
    }
    if plan.placement_bundles:
        options["placement_group_bundles"] = plan.placement_bundles
        options["placement_group_strategy"] = plan.placement_strategy
    ranks = plan.parallel.data
    if ranks > 1:
        # A replica of the file is a group of Serve's, started, restarted and stopped as one.
        del options["placement_group_strategy"]
        options["gang_scheduling_config"] = GangSchedulingConfig(gang_size=ranks)
    if replicas.min == replicas.max:
        options["num_replicas"] = replicas.min * ranks
    else:
        options["autoscaling_config"] = AutoscalingConfig(
            min_replicas=replicas.min,
            initial_replicas=replicas.min,
            max_replicas=replicas.max,
            metrics_interval_s=1.0,
            look_back_period_s=2.0,
            # The policy has its own patience (`hold_s`).
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function="serving.autoscaling.policy_ray:SignalsPolicy",
                policy_kwargs={"config": replicas.model_dump(mode="json")},
            ),
        )
    return options


def _hardware(
    config: ModelConfig, process: ProcessSettings
) -> tuple[Literal["cpu", "gpu"], str | None]:
    """Device and GPU kind: the config's, else the environment's, else what the cluster has."""
    resources = ray.cluster_resources() if ray.is_initialized() else {}
    device = process.device if process.device != "auto" else config.device
    if device == "auto":
        device = "gpu" if resources.get("GPU") or config.gpu else "cpu"
    if device == "cpu":
        return "cpu", None
    kinds = [kind for kind in GPUS if f"accelerator_type:{kind.upper()}" in resources]
    return "gpu", config.gpu or (kinds[0] if kinds else None)
