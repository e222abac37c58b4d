"""The part of the gateway's configuration that can change while it runs, as Serve's `user_config`.

Ray Serve restarts the replicas of an application whose `args` change. It hands a deployment's `user_config`
to running replicas, so a canary's weight, a key or a limit changes within a second and no
connection is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.config.admission import AdmissionConfig
from serving.config.base import FrozenConfig, validated
from serving.config.keys import KeyConfig
from serving.config.limits import RequestLimits
from serving.config.routing import RoutingConfig

# The deployment that a gateway application has (serving/app.py).
GATEWAY_DEPLOYMENT = "GatewayReplica"


class LiveConfig(FrozenConfig):
    """`user_config` of the gateway's deployment. Its keys win over the same keys of `args`."""

    routing: RoutingConfig | None = None
    keys: tuple[KeyConfig, ...] | None = None
    limits: RequestLimits | None = None
    admission: AdmissionConfig | None = None


def user_config(routing: RoutingConfig) -> dict[str, Any]:
    """As Serve keeps it: JSON, the same for the same routing."""
    said = routing.model_dump(mode="json", exclude_defaults=True)
    for fallback in said.get("fallbacks", {}).values():
        if "after" in fallback:
            # A set: without an order of its own it would look changed where nothing is.
            fallback["after"] = sorted(fallback["after"])
    return {"routing": said}


def live_from(config: Mapping[str, Any]) -> LiveConfig:
    """Read a `user_config`.

    Raises:
        ConfigError: a key is unknown or its value is invalid.
    """
    return validated(LiveConfig, config, "gateway: user_config")


def routing_from(config: Mapping[str, Any]) -> RoutingConfig:
    """The routing of a `user_config`; without one, the default routing.

    Raises:
        ConfigError: a key is unknown or its value is invalid.
    """
    return live_from(config).routing or RoutingConfig()


def user_config_in(application: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The gateway's `user_config` that an application of a Serve config sets, if it sets one."""
    for deployment in application.get("deployments") or ():
        if isinstance(deployment, Mapping) and deployment.get("name") == GATEWAY_DEPLOYMENT:
            found = deployment.get("user_config")
            return found if isinstance(found, Mapping) else None
    return None
