"""The stack under test: starts it, finds its processes, changes it, waits until it is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil
import yaml

from loadtests.processes.free_ports import free_port
from loadtests.processes.titles import ENGINE, below, is_called, title_of
from serving.api import STATUS
from serving.commands.stack import processes, ray_api
from serving.commands.stack.state import StackState
from serving.config.yaml_file import read_mapping

START_TIMEOUT_S = 300.0
RECOVERY_TIMEOUT_S = 180.0


class ChaosError(Exception):
    """The stack did not start, or did not come back; the message says what was waited for."""


def serve_config(gateway: Mapping[str, Any], *models: Mapping[str, Any]) -> dict[str, Any]:
    """A Serve config file, by the `args` of its gateway and of each model."""
    parts = [("gateway", "build_gateway", gateway)]
    parts += [(str(model["id"]), "build_model", model) for model in models]
    return {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": name,
                "import_path": f"serving.app:{build}",
                "route_prefix": None,
                "args": args,
            }
            for name, build, args in parts
        ],
    }


class Stack:
    """A stack of `comptoir up`, in a process and a cache folder of its own."""

    def __init__(self, config: Path, model: str) -> None:
        self._document = read_mapping(config)
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="comptoir-chaos-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = Path(self._folder.name) / "up.log"
        self._cache = Path(self._folder.name) / "cache"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.cli", "up", str(config), "--port", str(self.port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"COMPTOIR_CACHE_DIR": str(self._cache), "COMPTOIR_DEVICE": "cpu"},
                start_new_session=True,
            )

    @classmethod
    def of(cls, document: Mapping[str, Any], path: Path, model: str) -> Self:
        """A stack of this deployment file, which is written to `path`."""
        path.write_text(yaml.safe_dump(document))
        return cls(path, model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def ready(self) -> None:
        """Wait until it says that it is.

        Raises:
            ChaosError: it ended, or took too long; with the end of its output.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while "ready: " not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ChaosError(f"the stack did not start:\n{self._log.read_text()[-3000:]}")
            await asyncio.sleep(0.5)

    def stop(self) -> None:
        """Stop it, as Ctrl-C does, and make sure that no process is left."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=120)
        state = StackState.read(self._cache, self.port)
        if state is not None:
            processes.end_all(state.stack_id, self.port)
        self._folder.cleanup()

    @property
    def _state(self) -> StackState:
        state = StackState.read(self._cache, self.port)
        if state is None:
            raise ChaosError("the stack has gone")
        return state

    def _replicas_of(self, application: dict[str, Any]) -> int:
        return int(application["args"].get("replicas", {}).get("min", 1))

    @property
    def _models(self) -> list[dict[str, Any]]:
        applications = self._document["applications"]
        return [one for one in applications if one["import_path"].endswith(":build_model")]

    @property
    def _gateways(self) -> int:
        (gateway,) = (one for one in self._document["applications"] if one not in self._models)
        return int(gateway["args"].get("replicas", 1))

    def engines(self, model: str) -> list[psutil.Process]:
        """The engine processes of one model, oldest first."""
        replicas = self.find(f"ray::ServeReplica:{model}:ModelReplica")
        inside = {child.pid for replica in replicas for child in below(replica)}
        return [process for process in self.find(ENGINE) if process.pid in inside]

    def find(self, title: str) -> list[psutil.Process]:
        """Its processes whose title begins so, oldest first."""
        found = []
        for process in processes.of_stack(self._state.stack_id, self.port):
            with contextlib.suppress(psutil.Error):
                if is_called(title_of(process), title):
                    found.append((process.create_time(), process.pid, process))
        return [process for *_, process in sorted(found)]

    async def replicas(self) -> int:
        """How many replicas of models the endpoint knows, as one gateway says; 0 while none answers."""
        timeout = aiohttp.ClientTimeout(total=2)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self.url + STATUS) as response,
            ):
                models = (await response.json())["models"]
                return sum(len(each["replicas"]) for each in models)
        return 0

    async def whole(self, gone: set[int], *, replicas: int | None = None) -> None:
        """Wait until it has what the config says, without any process in `gone`.

        Args:
            replicas: of the model that is scaled here; without it, and of the others, what the file says.

        Raises:
            ChaosError: it does not come back by itself.
        """
        deadline = time.monotonic() + RECOVERY_TIMEOUT_S
        models = {one["name"]: self._replicas_of(one) for one in self._models}
        if replicas is not None:
            models[self._model] = replicas
        replicas, gateways = sum(models.values()), self._gateways
        while True:
            alive = {
                title: {process.pid for process in self.find(title)} - gone
                for title in (
                    "ray::ServeReplica:gateway",
                    ENGINE,
                    "ray::ServeController",
                )
            }
            if (
                len(alive["ray::ServeReplica:gateway"]) == gateways
                and len(alive[ENGINE]) == replicas
                and alive["ray::ServeController"]
                and await self.replicas() == replicas
            ):
                return
            if time.monotonic() > deadline:
                counts = {title: len(pids) for title, pids in alive.items()}
                raise ChaosError(f"it is not whole after {RECOVERY_TIMEOUT_S:.0f} s: {counts}")
            await asyncio.sleep(0.25)

    async def scale(self, replicas: int) -> None:
        """Deploy the same file with another number of replicas of the model."""
        document: dict[str, Any] = copy.deepcopy(self._document)
        for application in document["applications"]:
            if application["name"] == self._model:
                application["args"]["replicas"] = {"min": replicas, "max": replicas}
        await asyncio.to_thread(ray_api.deploy, self._state.dashboard, document)
