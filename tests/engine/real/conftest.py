"""A real replica in this process: what Ray Serve does to one, without Serve."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving.catalogue.catalogue import load_catalogue
from serving.engine_plan.planner import make_plan
from serving.settings import ModelConfig


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Ray LLM keeps placement groups, so an engine needs a Ray to ask, if only a local one.
    import ray

    ray.init(
        address="local",
        num_cpus=64,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 1024 * 1024,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Running:
    """A replica and a client to its door."""

    def __init__(self, replica: Any, facts: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.replica = replica
        self.facts = facts
        self._session = session
        self._url = f"http://{facts['host']}:{facts['port']}"

    async def post(self, path: str, body: dict[str, Any], token: str | None = None) -> Any:
        headers = {"x-comptoir-token": token or self.facts["token"]}
        async with self._session.post(self._url + path, json=body, headers=headers) as response:
            return response.status, await response.read()


@asynccontextmanager
async def replica_of(config: ModelConfig, cache_dir: Path) -> AsyncIterator[Running]:
    """Start a replica on this machine's CPU, and stop it."""
    from serving.engine.replica import ModelReplica

    plan = make_plan(config, load_catalogue(), device="cpu", gpu=None, cache_dir=cache_dir)
    before = dict(os.environ)
    replica = ModelReplica.__new__(ModelReplica)
    await replica.__init__(plan)  # type: ignore[misc]  # what Ray Serve does
    try:
        async with aiohttp.ClientSession() as session:
            yield Running(replica, await replica.record_replica_metadata(), session)
    finally:
        await replica.__del__()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
async def running(
    request: pytest.FixtureRequest,
    local_ray: None,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Running]:
    monkeypatch.setenv("COMPTOIR_REPLICA_HOST", "127.0.0.1")
    name, _, tuned = request.param.partition("+")
    adapters = {"tuned": str(request.getfixturevalue(tuned))} if tuned else {}
    config = ModelConfig(id=name, catalogue=f"tiny-{name}", drain_timeout_s=5, adapters=adapters)
    async with replica_of(config, cache_dir) as found:
        yield found
