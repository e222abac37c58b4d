"""The settings in force: `args`, the changes of Serve's `user_config`, the keys of `keys_file`.

A change that does not fit is refused in the log, in /status and in `comptoir_settings_refused`, and what was
in force stays: an error in Serve's hook would replace every gateway, and a file may be half written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.config.keys import KeyConfig, read_keys
from serving.config.rerouting import LiveConfig, live_from
from serving.errors import ConfigError
from serving.gateway.services import Services
from serving.settings import GatewayConfig

logger = logging.getLogger("ray.serve.comptoir")

# A revoked key stops within five seconds; a changed file counts when it says the same twice.
LOOK_EVERY_S, SETTLE_S = 1.0, 0.25


class LiveSettings:
    """Takes changes from both places and gives the whole to `Services.apply`.

    Args:
        config: the gateway's `args`, with the keys that its `keys_file` held when it was deployed.
        in_args: the keys that stand in `args` themselves.
    """

    def __init__(
        self, config: GatewayConfig, in_args: tuple[KeyConfig, ...], services: Services
    ) -> None:
        self._base = config
        self._in_args = in_args
        self._services = services
        self._live = LiveConfig()
        known = {key.hash for key in in_args}
        self._in_file = tuple(key for key in config.keys if key.hash not in known)
        self._task: asyncio.Task[None] | None = None

    @property
    def follows(self) -> bool:
        """Whether the file is still looked at; true when there is none."""
        return self._base.keys_file is None or (self._task is not None and not self._task.done())

    def take(self, user_config: Mapping[str, Any]) -> None:
        """Take over a changed `user_config` of Serve's."""
        try:
            live = live_from(user_config)
            self._apply(live, self._in_file)
        except ConfigError as error:
            self._refuse("user_config", error)
            return
        self._live = live
        self._services.refused_changes.pop("user_config", None)

    async def start(self) -> None:
        """Look at `keys_file` once, then follow it."""
        path = self._base.keys_file
        if path is not None and self._task is None:
            seen = await self._look(path, None, settle=False)
            self._task = asyncio.create_task(self._follow(path, seen))

    async def stop(self) -> None:
        """Stop following the file."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, path: Path, seen: bytes | None) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            seen = await self._look(path, seen)

    async def _look(self, path: Path, seen: bytes | None, *, settle: bool = True) -> bytes | None:
        """What the file holds now; None when it cannot be read. A change is taken when it has settled."""
        found = await asyncio.to_thread(_content, path)
        if found == seen and found is not None:
            return found
        if settle:
            await asyncio.sleep(SETTLE_S)
        try:
            in_file = await asyncio.to_thread(read_keys, path)
            if await asyncio.to_thread(_content, path) != found:
                # Somebody is writing: next time.
                return seen
            self._apply(self._live, in_file)
        except ConfigError as error:
            if await asyncio.to_thread(_content, path) != found:
                return seen
            self._refuse("keys_file", error)
            return found
        self._in_file = in_file
        self._services.refused_changes.pop("keys_file", None)
        logger.info("keys_file: %d keys are in force", len(in_file))
        return found

    def _apply(self, live: LiveConfig, in_file: tuple[KeyConfig, ...]) -> None:
        config = self._base.changed(live, self._in_args, in_file)
        if config != self._services.config:
            self._services.apply(config)

    def _refuse(self, source: str, error: ConfigError) -> None:
        if self._services.refused_changes.get(source) != error.message:
            self._services.refused_changes[source] = error.message
            logger.error("%s: what was in force stays: %s", source, error.message)


def _content(path: Path) -> bytes | None:
    try:
        return path.expanduser().read_bytes()
    except OSError:
        return None
