"""Holds requests for a model that sleeps (scaled to zero) until a replica answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from serving.config.admission import AdmissionConfig
from serving.errors import ModelUnavailableError
from serving.gateway.admission import BusyError, OnWait
from serving.gateway.listing import model_state
from serving.routing.directory import Directory, Model

# How often the directory is looked at: replicas appear in it within half a second.
LOOK_S = 0.2


class Waking:
    """Wakes models and holds requests meanwhile, a bounded number of them and for a bounded time."""

    def __init__(
        self,
        config: AdmissionConfig,
        directory: Callable[[], Directory],
        wake: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._directory = directory
        self._wake = wake
        self._clock = clock
        self.held: Counter[str] = Counter()

    async def awake(
        self, model: Model, deadline_s: float | None = None, on_wait: OnWait | None = None
    ) -> Model:
        """The model with replicas, if it sleeps; any other at once, as it is.

        Args:
            deadline_s: how many seconds it may wait; by default `max_wait_s`.
            on_wait: called every `keep_alive_s` while it waits.

        Raises:
            BusyError: too many requests wait for it already.
            ModelUnavailableError: it is not awake in time; it goes on waking.
        """
        if model_state(model) != "idle":
            return model
        if self.held[model.id] >= self._config.max_waiting:
            raise BusyError("full", self._config.max_retry_after_s)
        self.held[model.id] += 1
        try:
            return await self._replicas(
                model, self._config.max_wait_s if deadline_s is None else deadline_s, on_wait
            )
        finally:
            self.held[model.id] -= 1

    async def _replicas(self, model: Model, deadline_s: float, on_wait: OnWait | None) -> Model:
        began = reminded = self._clock()
        while (now := self._clock()) - began < deadline_s:
            self._wake(model.id)
            await asyncio.sleep(min(LOOK_S, deadline_s))
            current = self._directory().models.get(model.id)
            if current is None:
                break
            if current.replicas:
                return current
            if on_wait is not None and now - reminded >= self._config.keep_alive_s:
                reminded = now
                await on_wait(now - began)
        raise ModelUnavailableError(
            "the model is waking; try again shortly", param="model", retry_after_s=5.0
        )
