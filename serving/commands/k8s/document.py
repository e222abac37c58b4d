"""Reads a deployment file for a cluster: keys are on the cluster, and this machine decides nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from serving.config.yaml_file import read_mapping
from serving.deployment_file import GATEWAY_BUILDER, DeploymentFile, load_deployment_file
from serving.errors import ConfigError
from serving.settings import ProcessSettings


def load_for_cluster(path: Path, process: ProcessSettings) -> DeploymentFile:
    """Read and check a file.

    Raises:
        ConfigError: as for `load_deployment_file`.
    """
    return load_document(read_mapping(path, holding=" with `applications`"), process, path)


def cluster_settings() -> ProcessSettings:
    """Settings without this machine's environment, which decides nothing about a cluster."""
    here = {"host": None, "port": None, "device": "auto"}
    return ProcessSettings.load().model_copy(update=here)


def load_document(document: Any, process: ProcessSettings, path: Path) -> DeploymentFile:
    """Check a deployment file whose keys are in the cluster, and not on this machine.

    Raises:
        ConfigError: as for `load_deployment_file`; messages name `path`.
    """
    if not isinstance(document, dict) or not isinstance(document.get("applications"), list):
        raise ConfigError(f"{path}: applications: must be a list", param="applications")
    local = [_reachable_by_nobody(one) for one in document["applications"]]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "deployment.yaml")
        copy.write_text(yaml.safe_dump({**document, "applications": local}), encoding="utf-8")
        try:
            file = load_deployment_file(copy, process)
        except ConfigError as error:
            message = error.message.replace(str(copy), str(path))
            raise type(error)(message, param=error.param) from None
    return DeploymentFile(path, document, file.gateway, file.models)


def _reachable_by_nobody(application: Any) -> Any:
    """The gateway without its file of keys, for which only loopback is allowed."""
    if not isinstance(application, dict) or application.get("import_path") != GATEWAY_BUILDER:
        return application
    if not isinstance(application.get("args"), dict):
        return application
    args = {key: value for key, value in application["args"].items() if key != "keys_file"}
    return {**application, "args": {**args, "host": "127.0.0.1"}}
