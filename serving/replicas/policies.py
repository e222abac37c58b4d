"""The replica policies by name: the one place that knows them all. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.config.replica_routing import ReplicaRoutingConfig
from serving.errors import ConfigError
from serving.replicas.choice import RandomSource, ReplicaPolicy
from serving.replicas.least_loaded import LeastLoaded
from serving.replicas.prefix import Prefix
from serving.replicas.session import Session

POLICIES: Mapping[str, Callable[[ReplicaRoutingConfig, RandomSource, int], ReplicaPolicy]] = {
    "prefix": Prefix,
    "least-loaded": lambda config, random, gateways: LeastLoaded(random, gateways),
    "session": Session,
}


def replica_policy(
    config: ReplicaRoutingConfig, random: RandomSource, gateways: int = 1, name: str | None = None
) -> ReplicaPolicy:
    """A new policy of a configuration, or another one by its name. Each model has its own.

    Args:
        gateways: number of gateway processes that send to the same replicas, this one included.

    Raises:
        ConfigError: there is no policy of this name; the message has those that there are.
    """
    chosen = config.policy if name is None else name
    if chosen not in POLICIES:
        raise ConfigError(
            f"policy: there is no policy {chosen!r}; available: {', '.join(POLICIES)}",
            param="policy",
        )
    return POLICIES[chosen](config, random, gateways)
