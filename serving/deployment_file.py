"""Reads a Serve config file and checks Comptoir's part of it, without starting anything. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.config.rerouting import routing_from, user_config, user_config_in
from serving.config.yaml_file import read_mapping
from serving.errors import ConfigError
from serving.settings import GatewayConfig, ModelConfig, ProcessSettings

GATEWAY_BUILDER = "serving.app:build_gateway"
MODEL_BUILDER = "serving.app:build_model"


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
    """A gateway's args as they take effect: the routing in `user_config` wins (docs/rollout.md).

    Raises:
        ConfigError: that routing does not fit.
    """
    args = dict(application.get("args") or {})
    changed = user_config_in(application)
    return args if changed is None else args | user_config(routing_from(changed))


def _application(path: Path, index: int, application: Any) -> tuple[str, str, dict[str, Any]]:
    where = f"{path}: applications[{index}]"
    if not isinstance(application, dict):
        raise ConfigError(f"{where}: must be a mapping", param="applications")
    for key in ("name", "import_path"):
        if not isinstance(application.get(key), str):
            raise ConfigError(f"{where}: {key}: is required", param=key)
    if application.get("route_prefix", "/") is not None and application["import_path"] in (
        GATEWAY_BUILDER,
        MODEL_BUILDER,
    ):
        raise ConfigError(
            f"{where} ({application['name']}): route_prefix: must be null: only the gateway's own "
            "listener is reachable",
            param="route_prefix",
        )
    args = application.get("args") or {}
    if not isinstance(args, dict):
        raise ConfigError(f"{where}: args: must be a mapping", param="args")
    if application["import_path"] == GATEWAY_BUILDER:
        args = gateway_args(application)
    return application["name"], application["import_path"], args


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
                    f"{path}: application {model.id!r}: the model name {name!r} stands twice",
                    param="aliases" if name != model.id else "id",
                )
            seen.add(name)
