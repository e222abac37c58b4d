"""ModelReplica: the Serve deployment of one model; it is light until its constructor runs.

Importing `ray.serve.llm` takes ten seconds and 0.7 GiB. The builder of an application, the Serve
controller's tasks and the gateway must not pay that, so the heavy `ModelServer` is imported where
the engine lives and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serving.config.connections import ConnectionsConfig
from serving.engine import child_python, nixl, progress, quiet, signals, weights
from serving.engine.access import GatewayDoor
from serving.engine.metering import Meter
from serving.engine.watchdog import is_stalled
from serving.engine_plan.environment import UNSET_ENV
from serving.engine_plan.plan import EnginePlan
from serving.listener import Listener
from serving.replica_facts import ReplicaMetadata, ReplicaStats
from serving.settings import ProcessSettings

if TYPE_CHECKING:
    from serving.engine.group import Group

logger = logging.getLogger("ray.serve.comptoir")

# Gateways learn of a stopping replica from the controller's broadcast; until then they still send here.
LATE_ARRIVALS_S = 1.0
# How long gateways have to collect the last bills; they come every second.
BILLS_WAIT_S, BILLS_LOOK_S = 5.0, 0.05


class ModelReplica:
    """Starts an engine, serves vLLM's app to the gateways, reports to Serve, drains on shutdown."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, plan: EnginePlan, prefill: Any = None
    ) -> None:
        """Args: prefill: the deployment that computes prompts; so Serve starts it with this one."""
        self._plan = plan
        progress.report(plan.model_id, "importing")
        self._server: Any = None
        self._door: GatewayDoor | None = None
        self._listener: Listener | None = None
        self._group: Group | None = None
        self._token = secrets.token_urlsafe(32)
        self._meter = Meter(plan.model_id, is_prefill=plan.role == "prefill")
        self._start_s = 0.0
        began_s = time.monotonic()
        try:
            await self._start()
            self._start_s = time.monotonic() - began_s
        except Exception:
            progress.report(plan.model_id, "failed")
            raise

    async def _start(self) -> None:
        # Before the imports: vLLM, torch and OpenMP read these once. Engine processes inherit them.
        os.environ.update(self._plan.env)
        for name in UNSET_ENV:
            os.environ.pop(name, None)
        quiet.starting()
        child_python.use()
        import ray

        self._host = ProcessSettings.load().replica_host or ray.util.get_node_ip_address()
        if self._plan.role != "whole":
            nixl.check_installed()
            os.environ.update(nixl.environment(self._host, self._plan.env))
        # Importing blocks for seconds; in a thread, Serve's own loop keeps answering.
        server_class, config = await asyncio.to_thread(_heavy, self._plan)
        source = await asyncio.to_thread(weights.prepare, self._plan)
        progress.report(self._plan.model_id, "loading")
        self._server = server_class.prepared(config(source))
        await self._server.open()
        if self._plan.parallel.data > 1:
            from serving.engine.group import this_group

            self._group = this_group()
        app = await self._server.asgi_app(self._meter)
        self._door = GatewayDoor(app, self._token, self._has_failed)
        self._listener = Listener(
            self._door, self._host, connections=ConnectionsConfig.between_us()
        )
        quiet.serving()
        await self._listener.start()
        progress.report(self._plan.model_id, "ready")

    async def ready(self) -> bool:
        """Control call: true as soon as the replica answers requests."""
        return True

    async def check_health(self) -> None:
        """Serve's health hook.

        Raises:
            RuntimeError: the engine is dead or has stalled; Serve then replaces this replica.
        """
        if self._has_failed():
            raise RuntimeError(f"the engine of {self._plan.model_id!r} is dead or has stalled")

    def _has_failed(self) -> bool:
        if self._server is None or self._server.is_dead:
            return True
        door = self._door
        return door is not None and is_stalled(
            door.awaiting_since_s,
            last_step_s=signals.CURRENT.last_step_s,
            now_s=time.monotonic(),
            limit_s=self._plan.watchdog_s,
        )

    async def record_replica_metadata(self) -> dict[str, Any]:
        """Static facts for the gateways: address, token, and the model's card."""
        if self._listener is None:
            raise RuntimeError("the replica has not started")
        card = replace(self._plan.card, max_model_len=self._server.max_model_len)
        port, build = self._listener.port, self._plan.build
        return ReplicaMetadata(self._host, port, self._token, card.encode(), build).encode()

    async def record_routing_stats(self) -> dict[str, float]:
        """Live load for the gateways' routing."""
        door = self._door
        return ReplicaStats(
            **signals.CURRENT.snapshot(time.monotonic()),
            open_requests=float(door.open_requests if door else 0),
            arrived_requests=float(door.arrived_requests if door else 0),
            gateway_queue=float(door.gateway_queue if door else 0),
            start_s=round(self._start_s, 1),
            **self._meter.stats(),
        ).encode()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Live load for the controller's autoscaling, which does not see requests sent by HTTP."""
        return await self.record_routing_stats()

    async def __del__(self) -> None:
        """Serve's shutdown hook: let open requests finish, then end the engine."""
        # Nothing that an engine which has failed still owes will come: its streams end at once.
        if self._door is not None and not self._has_failed():
            await self._drain(self._door)
        if self._door is not None:
            await self._door.cut()
            await self._collected()
        if self._listener is not None:
            await self._listener.close()
        if self._server is not None:
            await self._server.stop()

    async def _collected(self) -> None:
        """Wait until gateways have the last bills, for a few seconds at most."""
        self._meter.end_soon()
        for _ in range(int(BILLS_WAIT_S / BILLS_LOOK_S)):
            if not self._meter.is_awaited:
                return
            await asyncio.sleep(BILLS_LOOK_S)

    async def _drain(self, door: GatewayDoor) -> None:
        until_s = time.monotonic() + LATE_ARRIVALS_S + self._plan.drain_timeout_s
        await asyncio.sleep(LATE_ARRIVALS_S)
        if not await door.drained(self._plan.drain_timeout_s):
            logger.warning(
                "%s: %d requests still open after %.0f s are cut",
                self._plan.model_id,
                door.open_requests,
                self._plan.drain_timeout_s,
            )
        # Without this rank's experts the streams of the others would stop.
        if self._group is not None:
            await self._group.all_finished(max(0.0, until_s - time.monotonic()))


def _heavy(plan: EnginePlan) -> tuple[Any, Any]:
    with child_python.no_collections():
        from ray.serve.llm import LLMConfig

        from serving.engine.model_server import ModelServer, RankServer

    server = RankServer if plan.parallel.data > 1 else ModelServer
    return server, lambda source: LLMConfig(**plan.llm_config(source))
