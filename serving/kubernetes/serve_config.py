"""The deployment file as it runs in a cluster: the same, with the gateway where clients can reach it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from serving.deployment_file import GATEWAY_BUILDER
from serving.errors import ConfigError

# Ray resource of the gateway's pods: with it a gateway runs there and nowhere else.
GATEWAY_RESOURCE = "comptoir_gateway"
GATEWAY_DEPLOYMENT = "GatewayReplica"
KEYS_FILE = "/etc/comptoir/keys/keys.yaml"


@dataclass(frozen=True)
class ClusterServe:
    """The Serve config, and what the pods must provide for it."""

    document: Mapping[str, Any]
    port: int
    gateway_replicas: int
    # Mounted from a Secret; None when all keys stand in the file.
    keys_file: PurePosixPath | None
    drain_timeout_s: float


def for_cluster(document: Mapping[str, Any], gateway: Any) -> ClusterServe:
    """Change what differs on a cluster: `host`, `keys_file`, and where the gateway runs.

    Args:
        document: the parsed deployment file; it is not changed.
        gateway: its `GatewayConfig`.

    Raises:
        ConfigError: the file decides something that only the cluster can.
    """
    changed = _plain(document)
    if changed.get("proxy_location") != "Disabled":
        raise ConfigError(
            "proxy_location: must be Disabled: Serve's proxy would listen on the gateway's port",
            param="proxy_location",
        )
    application = next(
        one for one in changed["applications"] if one["import_path"] == GATEWAY_BUILDER
    )
    if "deployments" in application:
        raise ConfigError(
            f"application {application['name']!r}: deployments: is set for the cluster; take it out",
            param="deployments",
        )
    args = dict(application.get("args") or {})
    args["host"] = "0.0.0.0"  # noqa: S104  # pods have an address of their own, and policies
    keys_file = args.get("keys_file") or (None if args.get("keys") else KEYS_FILE)
    if keys_file is not None:
        if not PurePosixPath(keys_file).is_absolute():
            raise ConfigError("keys_file: must be an absolute path", param="keys_file")
        args["keys_file"] = keys_file
    application["args"] = args
    application["deployments"] = [
        {
            "name": GATEWAY_DEPLOYMENT,
            "ray_actor_options": {"num_cpus": 0, "resources": {GATEWAY_RESOURCE: 1}},
        }
    ]
    return ClusterServe(
        changed,
        port=gateway.port,
        gateway_replicas=gateway.replicas,
        keys_file=PurePosixPath(keys_file) if keys_file else None,
        drain_timeout_s=gateway.drain_timeout_s,
    )


def _plain(value: Any) -> Any:
    """A copy in which nothing is shared: YAML anchors are written out."""
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return copy.copy(value)
