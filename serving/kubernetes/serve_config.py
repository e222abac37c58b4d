"""The deployment file for a cluster: the same, with the gateway where clients can reach it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from serving.config.rerouting import GATEWAY_DEPLOYMENT, user_config_in
from serving.deployment_file import APPLICATION_KEYS, GATEWAY_BUILDER, SERVE_KEYS
from serving.errors import ConfigError

# Ray resource of the gateway's pods: with it a gateway runs there and nowhere else.
GATEWAY_RESOURCE = "comptoir_gateway"
# With these a file places replicas itself; here pods are counted and gateways have pods of their own.
_PLACING = frozenset(
    {
        "autoscaling_config",
        "gang_scheduling_config",
        "max_replicas_per_node",
        "num_replicas",
        "placement_group_bundles",
        "placement_group_strategy",
        "ray_actor_options",
    }
)
_ANYWHERE = "0.0.0.0"  # noqa: S104  # a pod has an address of its own, and network policies
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
    """Change the settings that differ on a cluster: `host`, `keys_file`, and the gateway's placement.

    Routing in `user_config`, as `comptoir rollout export` writes it, stays there: Serve hands that to
    gateways that run, and would replace them if it came with `args`.

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
    # KubeRay sets it during an incremental upgrade, and a running site reports it.
    changed.pop("target_capacity", None)
    for one in changed["applications"]:
        _require_unplaced(one)
    args = dict(application.get("args") or {})
    args["host"] = _ANYWHERE
    keys_file = args.get("keys_file") or (None if args.get("keys") else KEYS_FILE)
    if keys_file is not None:
        if not PurePosixPath(keys_file).is_absolute():
            raise ConfigError("keys_file: must be an absolute path", param="keys_file")
        args["keys_file"] = keys_file
    if gateway.replicas > 1:
        # Each pod has places for its own gateways only, so that none stands empty: a changed one starts
        # when an old one has left, and meanwhile the others answer.
        args["surge_percent"] = 0
    application["args"] = args
    application["deployments"] = [_placement() | _routing(application)]
    return ClusterServe(
        changed,
        port=gateway.port,
        gateway_replicas=gateway.replicas,
        keys_file=PurePosixPath(keys_file) if keys_file else None,
        drain_timeout_s=gateway.drain_timeout_s,
    )


def serve_problems(document: Mapping[str, Any]) -> Iterator[str]:
    """Problems that keep a Serve config from running in a cluster, beyond those of `comptoir check`."""
    yield from (f"{key}: unknown key" for key in sorted(document.keys() - SERVE_KEYS))
    if document.get("proxy_location") != "Disabled":
        yield "proxy_location: must be Disabled: Serve's proxy would listen on the gateway's port"
    for application in document.get("applications") or ():
        where = f"application {application.get('name')!r}"
        unknown = sorted(application.keys() - APPLICATION_KEYS)
        yield from (f"{where}: {key}: unknown key" for key in unknown)
        if application.get("import_path") != GATEWAY_BUILDER:
            continue
        if (application.get("args") or {}).get("host") != _ANYWHERE:
            yield f"{where}: host: must be {_ANYWHERE}: clients reach the pod's address"
        if application.get("deployments") != [_placement() | _routing(application)]:
            yield f"{where}: deployments: must be {_placement()}: gateways run in the gateway pods"


def _require_unplaced(application: Mapping[str, Any]) -> None:
    """Refuse a file that places replicas on machines.

    Raises:
        ConfigError: `param` is `deployments`.
    """
    for deployment in application.get("deployments") or ():
        if application["import_path"] == GATEWAY_BUILDER:
            plain = {key: value for key, value in deployment.items() if key != "user_config"}
            wrong = [] if plain in ({"name": GATEWAY_DEPLOYMENT}, _placement()) else sorted(plain)
        else:
            wrong = sorted(deployment.keys() & _PLACING)
        if wrong:
            raise ConfigError(
                f"application {application['name']!r}: deployments: is set for the cluster; remove it "
                f"({', '.join(wrong)})",
                param="deployments",
            )


def _routing(application: Mapping[str, Any]) -> dict[str, Any]:
    """The gateway's `user_config`, where the file sets it: a rollout is going on, or has been."""
    found = user_config_in(application)
    return {} if found is None else {"user_config": found}


def _placement() -> dict[str, Any]:
    return {
        "name": GATEWAY_DEPLOYMENT,
        "ray_actor_options": {"num_cpus": 0, "resources": {GATEWAY_RESOURCE: 1}},
    }


def _plain(value: Any) -> Any:
    """A copy in which nothing is shared: YAML anchors are written out."""
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return copy.copy(value)
