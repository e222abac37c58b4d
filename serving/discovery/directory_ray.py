"""The directory from Ray: follows the model applications of this cluster as they come and go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serving.config.rerouting import GATEWAY_DEPLOYMENT
from serving.discovery import replica_table
from serving.discovery.directory import Directory, Model
from serving.discovery.replica_table import (
    CARDS,
    CHANGED_DEPLOYMENTS,
    GATEWAYS,
    PREFILL_SEEN,
    SEEN,
)
from serving.replica_facts import ModelCard
from serving.replica_protocol import MODEL_DEPLOYMENT, PREFILL_DEPLOYMENT

logger = logging.getLogger("ray.serve.comptoir")

# What a call to Serve raises while its controller or a replica is being replaced (KeyError: the deployment).
SERVE_TROUBLE = (
    RayError,
    RayServeException,
    RuntimeError,
    TimeoutError,
    ConnectionError,
    KeyError,
)

FULL_PERIOD_S = 0.1


class RayDirectory:
    """Keeps a `Directory` current from Serve's status and the listening routers."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._states: dict[str, str] = {}
        self._wanted: dict[str, dict[str, int]] = {}
        self._failing: set[str] = set()
        self._prefill_wanted: dict[str, dict[str, int]] = {}
        self._handles: dict[str, asyncio.Task[None]] = {}
        self._prefill_handles: dict[str, asyncio.Task[None]] = {}
        self._gateway_handles: dict[str, asyncio.Task[None]] = {}
        self._readers: dict[str, DeploymentHandle[Any]] = {}
        self._task: asyncio.Task[None] | None = None
        # Applications that have changed since the picture was made.
        self._changed = replica_table.listen()
        self._current = Directory()

    async def start(self) -> None:
        """Read Serve's status once, then again and again."""
        await self._look()
        self._task = asyncio.create_task(self._follow())

    async def full(self, within_s: float) -> bool:
        """Wait until a replica is known of each model that has one running; False when some stay unknown.

        A gateway that takes requests earlier would report running models as missing.
        """
        until_s = time.monotonic() + within_s
        while not self._is_full():
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(FULL_PERIOD_S)
        return True

    def _is_full(self) -> bool:
        return all(
            SEEN.get(app) or not states.get("RUNNING")
            for app, states in self._wanted.items()
            if app in self._states
        )

    async def stop(self) -> None:
        """Stop following."""
        opening = (
            *self._handles.values(),
            *self._prefill_handles.values(),
            *self._gateway_handles.values(),
        )
        tasks = [task for task in (self._task, *opening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        replica_table.unlisten(self._changed)

    @property
    def follows(self) -> bool:
        """Whether it still follows the cluster."""
        return self._task is not None and not self._task.done()

    @property
    def current(self) -> Directory:
        """The current picture of the site."""
        # A request reads this several times: nothing here may take longer with more models.
        if self._changed:
            self._take_over()
        return self._current

    def _take_over(self) -> None:
        """Replace the changed parts of the picture, and nothing else."""
        changed = set()
        while self._changed:
            changed.add(self._changed.pop())
        known = changed & self._states.keys()
        self._current = self._current.replaced(
            [self._model(app) for app in known], gone=changed - known
        )

    def _model(self, app: str) -> Model:
        return Model(
            id=app,
            card=CARDS.get(app) or ModelCard(),
            replicas=SEEN.get(app, ()),
            state=self._states[app],
            wanted=self._wanted.get(app, {}),
            prefill=PREFILL_SEEN.get(app, ()),
            prefill_wanted=self._prefill_wanted.get(app, {}),
            fails_to_start=app in self._failing,
        )

    def elsewhere(self) -> list[Mapping[str, Any]]:
        """The last reports of the other gateways on their requests to models (`report.demand`)."""
        own = _own_id()
        return [report for name, report in GATEWAYS.items() if name != own]

    def wake(self, model_id: str) -> None:
        """Ask Serve for a replica of a model that has none; returns at once."""
        asking = self._handles.get(model_id)
        if asking is not None and asking.done():
            self._handles[model_id] = asyncio.create_task(_ask_for_replica(model_id))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self._look()
            except SERVE_TROUBLE as error:
                # The controller may be restarting: keep serving from what is known.
                logger.warning("discovery failed: %s", type(error).__name__)

    async def _look(self) -> None:
        status = await asyncio.to_thread(serve.status)
        states = {
            name: str(app.status.value if hasattr(app.status, "value") else app.status)
            for name, app in status.applications.items()
            if MODEL_DEPLOYMENT in app.deployments or _is_building(app)
            # One that is being removed ends what it has begun, and no new request waits for it.
            if app.status != "DELETING"
        }
        for handles, deployment in (
            (self._handles, MODEL_DEPLOYMENT),
            (self._prefill_handles, PREFILL_DEPLOYMENT),
            (self._gateway_handles, GATEWAY_DEPLOYMENT),
        ):
            for name, app in status.applications.items():
                if name not in handles and deployment in app.deployments:
                    handles[name] = asyncio.create_task(_open_router(name, deployment))
        for name in [name for name in self._handles if name not in status.applications]:
            self._handles.pop(name).cancel()
            self._readers.pop(name, None)
            SEEN.forget(name)
            CARDS.forget(name)
        for name in CHANGED_DEPLOYMENTS & self._handles.keys():
            CHANGED_DEPLOYMENTS.discard(name)
            try:
                self._readers[name] = _read_card_again(name)
            except SERVE_TROUBLE:
                # The next look tries again.
                CHANGED_DEPLOYMENTS.add(name)
                raise
        # The application is gone, or it has no prefill replicas any more.
        for name in [name for name in self._prefill_handles if not _has_prefill(status, name)]:
            self._prefill_handles.pop(name).cancel()
            PREFILL_SEEN.forget(name)
        before = self._facts()
        self._states = states
        self._wanted = _replica_states(status, MODEL_DEPLOYMENT)
        self._failing = {name for name, app in status.applications.items() if _fails_to_start(app)}
        self._prefill_wanted = _replica_states(status, PREFILL_DEPLOYMENT)
        after = self._facts()
        self._changed |= {
            app for app in before.keys() | after.keys() if before.get(app) != after.get(app)
        }

    def _facts(self) -> dict[str, tuple[Any, ...]]:
        """Serve's status of each model."""
        return {
            app: (state, self._wanted.get(app), self._prefill_wanted.get(app), app in self._failing)
            for app, state in self._states.items()
        }


def _own_id() -> str | None:
    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except RayServeException:
        return None


def _has_prefill(status: Any, name: str) -> bool:
    app = status.applications.get(name)
    return app is not None and (PREFILL_DEPLOYMENT in app.deployments or _is_building(app))


def _replica_states(status: Any, deployment: str) -> dict[str, dict[str, int]]:
    """Numbers of replicas by Serve's state of them, for each application that has such a deployment."""
    return {
        name: {
            str(getattr(state, "value", state)): count
            for state, count in found.replica_states.items()
        }
        for name, app in status.applications.items()
        if (found := app.deployments.get(deployment)) is not None
    }


def _is_building(app: Any) -> bool:
    return not app.deployments


def _fails_to_start(app: Any) -> bool:
    """Whether Serve has failed to start replicas of a model several times in a row, or to build it at all.

    An application is also UNHEALTHY while one of its replicas that crashed is being replaced.
    """
    found = app.deployments.get(MODEL_DEPLOYMENT)
    if found is None:
        return bool(app.status == "DEPLOY_FAILED")
    has_failed = found.status in ("UNHEALTHY", "DEPLOY_FAILED")
    return bool(has_failed and found.status_trigger == "REPLICA_STARTUP_FAILED")


async def _open_router(app_name: str, deployment: str) -> None:
    """Make Ray create a deployment's router without a call, which would wake a sleeping model."""
    while True:
        try:
            handle = serve.get_deployment_handle(deployment, app_name=app_name)
            # A handle that is given options connects, by its documentation.
            handle.options(method_name="ready")
            return
        except SERVE_TROUBLE as error:
            logger.warning("model %s is not there yet: %s", app_name, type(error).__name__)
            await asyncio.sleep(1.0)


def _read_card_again(app_name: str) -> DeploymentHandle[Any]:
    """A new router, which reads the deployment as it is now; the one of Serve's own handle read it once.

    A sleeping model is thus known as it was deployed last. The router lives as long as the handle does.
    """
    handle: DeploymentHandle[Any] = DeploymentHandle(MODEL_DEPLOYMENT, app_name)
    handle.options(method_name="ready")
    return handle


async def _ask_for_replica(app_name: str) -> None:
    """A call that waits for a replica, by which Serve learns that one is wanted."""
    while True:
        try:
            handle = serve.get_deployment_handle(MODEL_DEPLOYMENT, app_name=app_name)
            await handle.ready.remote()
            return
        except SERVE_TROUBLE as error:
            logger.warning("model %s does not answer yet: %s", app_name, type(error).__name__)
            await asyncio.sleep(1.0)
