"""GatewayReplica: the Serve deployment of the endpoint; it listens for itself."""

from __future__ import annotations

import logging
from typing import Any

from serving.config.rerouting import routing_from
from serving.errors import ConfigError
from serving.gateway.asgi import build_asgi
from serving.gateway.backend import RayDirectory
from serving.gateway.services import Services
from serving.listener import Listener
from serving.settings import GatewayConfig

logger = logging.getLogger("ray.serve.comptoir")


class GatewayReplica:
    """Binds the port, follows the models, answers, drains on shutdown."""

    async def __init__(self, config: GatewayConfig) -> None:  # type: ignore[misc]  # Ray awaits it
        self._config = config
        self._models = RayDirectory(config.discovery_period_s)
        self._services = Services.build(config, lambda: self._models.current, self._models.wake)
        self._listener = Listener(
            build_asgi(self._services),
            config.host,
            config.port,
            share_port=True,
            connections=config.connections,
        )
        await self._services.upstream.start()
        await self._models.start()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve's hook, after the constructor and whenever `user_config` changes: new routing, in place.

        Routing that does not fit is refused in the log and the old one kept: an error here would make Serve
        replace every gateway.
        """
        try:
            self._services.dispatcher.reroute(routing_from(user_config))
        except ConfigError as error:
            logger.error("the routing stays as it was: %s", error.message)
        if not self._listener.listens:
            # Not before: the routing of the constructor may be older than this one.
            await self._listener.start()

    async def ready(self) -> bool:
        """Control call: true as soon as the endpoint answers."""
        return True

    async def check_health(self) -> None:
        """Serve's health hook.

        Raises:
            RuntimeError: discovery or the listener has ended; Serve then replaces this replica.
        """
        if not self._models.follows or not self._listener.listens:
            raise RuntimeError("the gateway no longer follows its models or its port")

    async def __del__(self) -> None:
        """Serve's shutdown hook: stop accepting, let open requests finish, then close."""
        await self._listener.close(self._config.drain_timeout_s)
        await self._models.stop()
        await self._services.stop()
