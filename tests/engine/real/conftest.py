"""A real replica in this process: what Ray Serve does to one, without Serve.

Tests that only ask share one: it lives until a test of this folder wants another model, or until the last
of them. A test names the model that it asks:

    pytestmark = [pytest.mark.engine, pytest.mark.ray, pytest.mark.asyncio(loop_scope=LOOP)]

    @pytest.mark.parametrize("running", ["qwen3"], indirect=True)
    async def test_it_answers(running: Running) -> None:
        status, body = await running.post("/v1/completions", {"model": "qwen3", "prompt": "Hello"})
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from loadtests.processes.titles import engines_under
from serving.catalogue.catalogue import load_catalogue
from serving.engine_plan.planner import make_plan
from serving.settings import ModelConfig

# All of this folder, so that a test finds the replica on the event loop where it was started.
LOOP = "package"


@pytest.fixture(scope="package")
def local_ray() -> Iterator[None]:
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


@pytest.fixture(scope="package")
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
    os.environ["COMPTOIR_REPLICA_HOST"] = "127.0.0.1"
    replica = ModelReplica.__new__(ModelReplica)
    try:
        await replica.__init__(plan)  # type: ignore[misc]  # what Ray Serve does
        async with aiohttp.ClientSession() as session:
            yield Running(replica, await replica.record_replica_metadata(), session)
    finally:
        await replica.__del__()
        os.environ.clear()
        os.environ.update(before)


class Shared:
    """One replica at a time, for as long as tests want the same."""

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._config: ModelConfig | None = None
        self._running: Running | None = None
        self._open = AsyncExitStack()

    async def get(self, config: ModelConfig) -> Running:
        """The one that runs, or else another in its place."""
        if self._running is None or config != self._config:
            await self.close()
            self._running = await self._open.enter_async_context(
                replica_of(config, self._cache_dir)
            )
            self._config = config
        return self._running

    async def close(self) -> None:
        """Stop what runs; no process of it is left."""
        self._running = None
        await self._open.aclose()
        assert engines_under(psutil.Process()) == []


@pytest_asyncio.fixture(scope="package", loop_scope=LOOP)
async def shared(local_ray: None, cache_dir: Path) -> AsyncIterator[Shared]:
    found = Shared(cache_dir)
    yield found
    await found.close()


@pytest_asyncio.fixture(loop_scope=LOOP)
async def running(request: pytest.FixtureRequest, shared: Shared) -> AsyncIterator[Running]:
    """The model that the parameter names; with `+FIXTURE`, and the adapter that this fixture wrote."""
    name, _, tuned = request.param.partition("+")
    adapters = {"tuned": str(request.getfixturevalue(tuned))} if tuned else {}
    config = ModelConfig(id=name, catalogue=f"tiny-{name}", drain_timeout_s=5, adapters=adapters)
    found = await shared.get(config)
    try:
        yield found
        # Whoever comes next finds it as it was.
        assert await found.replica._door.drained(10)
        assert (await found.replica.record_routing_stats())["running"] == 0
        await found.replica.check_health()
    except BaseException:
        await shared.close()
        raise


def _model(item: pytest.Item) -> tuple[str, bool]:
    """Which replica it wants; on each, bills come first: they are counted from its start."""
    call = getattr(item, "callspec", None)
    params = {} if call is None else call.params
    wanted = params.get("running") or ("~" if "spread_out" in params else "~~")
    return str(wanted), "test_metering_real" not in item.nodeid


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that want the same replica come one after the other."""
    places = [place for place, item in enumerate(items) if "tests/engine/real/" in item.nodeid]
    for place, item in zip(
        places, sorted((items[place] for place in places), key=_model), strict=True
    ):
        items[place] = item
