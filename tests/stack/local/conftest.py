"""One real stack for all tests of this folder: `comptoir up deployments/local.yaml`.

TEST_STACK_PORT=8000 uses a stack that already runs on that port, for working on a test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from serving.commands import processes
from serving.settings import ProcessSettings
from tests.stack.conftest import ROOT, Stack, start, stop


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = os.environ.get("TEST_STACK_PORT")
    if running:
        yield Stack(int(running), ProcessSettings.load().cache_dir, None)
        return
    process, started = start(ROOT / "deployments" / "local.yaml", tmp_path_factory.mktemp("stack"))
    state = started.state
    try:
        yield started
    finally:
        code = stop(process)
    assert code == 0, started.output[-4000:]
    assert processes.of_stack(state.stack_id, state.port) == []
