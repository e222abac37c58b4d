"""Reads a Serve config file and checks Comptoir's part of it, without starting anything. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.config.base import unknown_key
from serving.config.rerouting import GATEWAY_DEPLOYMENT, live_from, user_config_in
from serving.config.yaml_file import read_mapping
from serving.errors import ConfigError
from serving.settings import GatewayConfig, ModelConfig, ProcessSettings

GATEWAY_BUILDER = "serving.app:build_gateway"
MODEL_BUILDER = "serving.app:build_model"
# Ray Serve takes keys that it does not know, and forgets them. A test holds these lists to its schema.
SERVE_KEYS = frozenset(
    {
        "applications",
        "controller_options",
        "grpc_options",
        "http_options",
        "logging_config",
        "proxy_location",
        "target_capacity",
        "tracing_config",
    }
)
APPLICATION_KEYS = frozenset(
    {
        "args",
        "autoscaling_policy",
        "deployments",
        "external_scaler_enabled",
        "host",
        "import_path",
        "logging_config",
        "name",
        "port",
        "route_prefix",
        "runtime_env",
    }
)


@dataclass(frozen=True)
class DeploymentFile:
    """A parsed file: the raw document for Serve, and what Comptoir understood of it."""

    path: Path
    document: Mapping[str, Any]
    gateway: GatewayConfig
    models: tuple[ModelConfig, ...]


def load_deployment_file(path: Path, process: ProcessSettings) -> DeploymentFile:
    """Read and validate.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or an application's args do not fit; the
            message names file, application and key.
    """
    document = read_mapping(path, holding=" with `applications`")
    _no_unknown_key(str(path), document, SERVE_KEYS)
    applications = document.get("applications")
    if not isinstance(applications, list) or not applications:
        raise ConfigError(f"{path}: applications: must be a list", param="applications")
    gateways: list[GatewayConfig] = []
    models: list[ModelConfig] = []
    for index, application in enumerate(applications):
        name, builder, args = _application(path, index, application)
        try:
            if builder == GATEWAY_BUILDER:
                gateways.append(GatewayConfig.from_args(args, process))
            elif builder == MODEL_BUILDER:
                models.append(_model(name, args))
        except ConfigError as error:
            raise type(error)(
                f"{path}: application {name!r}: {error.message}", param=error.param
            ) from None
    if len(gateways) != 1:
        raise ConfigError(
            f"{path}: applications: one of them must have import_path {GATEWAY_BUILDER} "
            f"({len(gateways)} have)",
            param="applications",
        )
    _no_name_twice(path, models)
    return DeploymentFile(path, document, gateways[0], tuple(models))


def gateway_args(application: Mapping[str, Any]) -> dict[str, Any]:
    """A gateway's args as they take effect: what stands in `user_config` wins (docs/rollout.md).

    Raises:
        ConfigError: that does not fit.
    """
    args = dict(application.get("args") or {})
    changed = dict(user_config_in(application) or {})
    live_from(changed)
    return args | changed


def _application(path: Path, index: int, application: Any) -> tuple[str, str, dict[str, Any]]:
    where = f"{path}: applications[{index}]"
    if not isinstance(application, dict):
        raise ConfigError(f"{where}: must be a mapping", param="applications")
    _no_unknown_key(where, application, APPLICATION_KEYS)
    for key in ("name", "import_path"):
        if not isinstance(application.get(key), str):
            raise ConfigError(f"{where}: {key}: is required", param=key)
    is_ours = application["import_path"] in (GATEWAY_BUILDER, MODEL_BUILDER)
    if not is_ours and application["import_path"].startswith("serving."):
        raise ConfigError(
            f"{where} ({application['name']}): import_path: must be {GATEWAY_BUILDER} or "
            f"{MODEL_BUILDER}: Comptoir builds nothing else",
            param="import_path",
        )
    if is_ours and application.get("route_prefix", "/") is not None:
        raise ConfigError(
            f"{where} ({application['name']}): route_prefix: must be null: only the gateway's own "
            "listener is reachable",
            param="route_prefix",
        )
    args = application.get("args") or {}
    if not isinstance(args, dict):
        raise ConfigError(f"{where}: args: must be a mapping", param="args")
    deployments = application.get("deployments") or []
    if not isinstance(deployments, list) or not all(isinstance(one, dict) for one in deployments):
        raise ConfigError(
            f"{where}: deployments: must be a list of mappings with `name`", param="deployments"
        )
    if application["import_path"] == GATEWAY_BUILDER:
        for position, one in enumerate(deployments):
            if one.get("name") != GATEWAY_DEPLOYMENT:
                raise ConfigError(
                    f"{where}: deployments[{position}]: name: must be {GATEWAY_DEPLOYMENT}, the only "
                    "deployment of a gateway: nothing under another name would take effect",
                    param="deployments",
                )
        args = gateway_args(application)
    return application["name"], application["import_path"], args


def _no_unknown_key(where: str, given: Mapping[Any, Any], known: frozenset[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{where}: {key}: {unknown_key(str(key), sorted(known))}", param=str(key)
            )


def _model(name: str, args: dict[str, Any]) -> ModelConfig:
    model = ModelConfig.from_args(args)
    if model.id != name:
        raise ConfigError(
            f"model: id: {model.id!r} must equal the application's name {name!r}: gateways find a "
            "model by it",
            param="id",
        )
    return model


def _no_name_twice(path: Path, models: list[ModelConfig]) -> None:
    seen: set[str] = set()
    for model in models:
        for name in (model.id, *model.aliases, *model.adapters):
            if name in seen:
                raise ConfigError(
                    f"{path}: application {model.id!r}: the model name {name!r} appears twice",
                    param="aliases" if name != model.id else "id",
                )
            seen.add(name)
