"""GatewayReplica: the Serve deployment of the endpoint; it listens for itself."""

from __future__ import annotations

import gc
import logging
import time
from asyncio import sleep
from typing import Any

from serving.config.keys import KeyConfig
from serving.discovery.directory_ray import RayDirectory
from serving.gateway.asgi import build_asgi
from serving.gateway.live_settings import LiveSettings
from serving.gateway.neighbours import Neighbours
from serving.gateway.report import demand
from serving.gateway.services import Services
from serving.listener import Listener
from serving.settings import GatewayConfig

logger = logging.getLogger("ray.serve.comptoir")

# A new gateway takes requests when it knows the models that run, or after so long without some of them.
FULL_WITHIN_S = 30.0
# A balancer that looks less often would not notice in time that a gateway leaves.
PROBED_WITHIN_S = 60.0


class GatewayReplica:
    """Binds the port, follows the models, answers, leaves without a gap.

    Args:
        keys: those that stand in the gateway's `args` themselves; the others come from `keys_file`.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, config: GatewayConfig, keys: tuple[KeyConfig, ...] | None = None
    ) -> None:
        self._config = config
        self._models = RayDirectory(config.discovery_period_s)
        models = self._models
        self._services = Services.build(
            config, lambda: models.current, models.wake, models.elsewhere
        )
        in_args = config.keys if keys is None else keys
        self._settings = LiveSettings(config, in_args, self._services)
        self._listener = Listener(
            build_asgi(self._services),
            config.host,
            config.port,
            share_port=True,
            connections=config.connections,
        )
        self._neighbours = Neighbours(config.host, config.port)
        await self._services.start()
        await self._models.start()
        if not await self._models.full(FULL_WITHIN_S):
            logger.warning("the gateway begins without knowing all replicas that run")
        await self._settings.start()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve's hook, after the constructor and whenever `user_config` changes: it takes effect in place.

        What does not fit is refused in the log and the old kept: an error here would make Serve replace
        every gateway.
        """
        self._settings.take(user_config)
        if not self._listener.listens:
            # What there is now stays: to look at all of it again takes the collector a tenth of a second.
            gc.collect()
            gc.freeze()
            # Not before: the settings of the constructor may be older than these.
            await self._listener.start()
            self._neighbours.join()

    async def ready(self) -> bool:
        """Control call: true as soon as the endpoint answers."""
        return True

    async def record_routing_stats(self) -> dict[str, Any]:
        """For the other gateways, so that each can answer for all."""
        return demand(self._services)

    async def check_health(self) -> None:
        """Serve's health hook.

        Raises:
            RuntimeError: discovery, the listener or the collecting of bills has ended; Serve then replaces
                this replica.
        """
        if not self._models.follows or not self._listener.listens or not self._settings.follows:
            raise RuntimeError("the gateway no longer follows its models, its port or its keys")
        if not self._services.collector.runs:
            raise RuntimeError("the gateway no longer collects what requests cost")

    async def __del__(self) -> None:
        """Serve's shutdown hook: leave without a gap.

        First everybody is told to go elsewhere: balancers by `/ready`, clients by the end of their connection
        after an answer. Where another gateway takes the connections of this port, balancers must not see a
        503 that is not its own. Then nobody new is accepted, what is open ends by itself, and at last what is
        left is ended with an error. The only gateway of a machine whose `/ready` nobody looks at has nobody
        to tell.
        """
        self._neighbours.leave()
        has_company = self._neighbours.are_there()
        self._services.is_leaving = not has_company
        self._listener.begin_drain()
        if has_company or time.monotonic() - self._services.probed_s < PROBED_WITHIN_S:
            await sleep(self._config.lame_duck_s)
        await self._listener.close(self._config.drain_timeout_s)
        await self._settings.stop()
        await self._models.stop()
        await self._services.stop()
