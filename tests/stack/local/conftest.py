"""One real stack for all tests of this folder: `comptoir up deployments/local.yaml`.

A test may change it and must put it back: the next one finds the same models with as many replicas, and the
next file the same configuration and the same kinds of processes. With TEST_STACK_PORT=8000 they use a stack
that already runs on that port, for working on a test.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.processes.titles import ENGINE, is_called, title_of
from serving.commands.stack import processes, ray_api
from serving.environment import cluster_environment
from serving.settings import ProcessSettings
from tests.lazily import lazily
from tests.stack.conftest import ROOT, Stack, start, stop
from tests.stack.deploying import deploy
from tests.stack.local.official_clients import open_async_client, open_client

openai = lazily("openai")
CONFIG = ROOT / "deployments" / "local.yaml"
# What was replaced may still be starting, or ending.
SETTLED_WITHIN_S = 120.0


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = os.environ.get("TEST_STACK_PORT")
    if running:
        yield Stack(int(running), ProcessSettings.load().cache_dir, None)
        return
    process, started = start(CONFIG, tmp_path_factory.mktemp("stack"))
    state = started.state
    try:
        yield started
    finally:
        code = stop(process)
    assert code == 0, started.output[-4000:]
    assert processes.of_stack(state.stack_id, state.port) == []


def _models(stack: Stack) -> dict[str, Any]:
    """Each model's state and how many replicas it has."""
    states = httpx.get(f"{stack.url}/ready?all=1", timeout=30).json()["models"]
    models = httpx.get(f"{stack.url}/status", timeout=30).json()["models"]
    return {one["id"]: (states.get(one["id"]), len(one["replicas"])) for one in models}


def _applications(stack: Stack) -> dict[str, Any]:
    """What Serve was asked for, and whether it is so."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster_environment().items():
            patch.setenv(name, value)
        found = ray_api.applications(stack.state.dashboard)
    return {
        name: (one["status"], (one.get("deployed_app_config") or {}).get("args"))
        for name, one in found.items()
    }


def _kinds(stack: Stack) -> Counter[str]:
    """How many replicas of each application have a process, and how many engines there are."""
    titles = map(title_of, processes.of_stack(stack.state.stack_id, stack.port))
    found: Counter[str] = Counter()
    for title in titles:
        if title.startswith("ray::ServeReplica:"):
            found[title.split(":")[3]] += 1
        elif is_called(title, ENGINE):
            found["engine"] += 1
    return found


def _until(look: Callable[[Stack], Any], stack: Stack, before: Any) -> Any:
    """What it looks like at last: as before, or not in time."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while (now := look(stack)) != before and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def _must_be_as_before(look: Callable[[Stack], Any], stack: Stack, before: Any) -> None:
    now = _until(look, stack, before)
    if now == before:
        return
    # One test has failed: those after it need not.
    with tempfile.TemporaryDirectory() as folder:
        deploy(stack, yaml.safe_load(CONFIG.read_text()), Path(folder))
    _until(look, stack, before)
    pytest.fail(f"the shared stack was left changed: {before} -> {now}")


@pytest.fixture(autouse=True)
def models_as_before(stack: Stack) -> Iterator[None]:
    """Fails a test that leaves other models, or another number of replicas."""
    before = _models(stack)
    yield
    _must_be_as_before(_models, stack, before)


@pytest.fixture(autouse=True, scope="module")
def site_as_before(stack: Stack) -> Iterator[None]:
    """Fails the last test of a file that leaves another configuration, or other processes."""
    before = _applications(stack), _kinds(stack)
    yield
    _must_be_as_before(lambda now: (_applications(now), _kinds(now)), stack, before)


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with open_client(stack) as made:
        yield made


@pytest.fixture
async def aclient(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with open_async_client(stack) as made:
        yield made
