"""Rollouts under load: one is promoted, the next aborted. No request may fail, no stream be cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.processes.titles import title_of
from serving.commands.stack import processes
from tests.stack.conftest import ROOT, Stack, start, stop
from tests.stack.deploying import deploy, eventually
from tests.stack.load import Load

SITE = {
    "proxy_location": "Disabled",
    "logging_config": {"enable_access_log": False},
    "applications": [
        {
            "name": "gateway",
            "route_prefix": None,
            "import_path": "serving.app:build_gateway",
            # Two: what waits at one is known to the other.
            "args": {"host": "127.0.0.1", "port": 8000, "replicas": 2},
        },
        {
            "name": "qwen3",
            "route_prefix": None,
            "import_path": "serving.app:build_model",
            "args": {"id": "qwen3", "catalogue": "tiny-qwen3"},
        },
    ],
}


@pytest.fixture
def one_model(tmp_path: Path) -> Iterator[Stack]:
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(SITE))
    process, stack = start(config, tmp_path)
    try:
        yield stack
    finally:
        code = stop(process)
    assert code == 0, stack.output[-4000:]


def rollout(stack: Stack, *args: str) -> str:
    """What an operator types."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "rollout", *args, "--port", str(stack.port)],
        cwd=ROOT,
        env=os.environ | {"COMPTOIR_CACHE_DIR": str(stack.cache_dir)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def gateways(stack: Stack) -> set[int]:
    """Process ids of the gateway's replicas."""
    found = processes.of_stack(stack.state.stack_id, stack.port)
    return {one.pid for one in found if ":GatewayReplica" in title_of(one)}


def asked(stack: Stack) -> int:
    """Requests that all gateways have had, as any of them tells."""
    status = httpx.get(f"{stack.url}/status", timeout=30).json()
    assert status["gateways"] <= 2
    if status["gateways"] < 2:
        return 0
    return int(sum(one["asked"]["requests"] for one in status["models"]))


def abort_the_next(stack: Stack, kept: dict[str, Any]) -> None:
    """The revision goes only when a stream that it has begun is over; then all is as before."""
    with Load(stack) as load:
        rollout(stack, "start", "qwen3", "--to", "engine_args.max_num_seqs=4", "--weight", "50")
        assert load.counted_over(6, at_least=30)["qwen3--r3"] > 0
        with Load(stack, "qwen3--r3", streams=1, tokens=2500) as long:
            time.sleep(1)
            long.begin_no_more()
            assert not long.answers, "the stream was over before anything happened to it"
            rollout(stack, "abort", "qwen3")
        # All of it was sent before the revision went; this client may read more slowly.
        assert (long.answers, long.failures) == ({"qwen3--r3": 1}, [])
        after = load.counted_over(2)
    assert load.failures == []
    assert set(after) == {"qwen3--r2"}
    assert yaml.safe_load(rollout(stack, "export")) == kept


@pytest.mark.timeout(1200)
def test_a_rollout_fails_no_request_and_cuts_no_stream(one_model: Stack, tmp_path: Path) -> None:
    before = yaml.safe_load(rollout(one_model, "export"))
    gateway = gateways(one_model)
    with Load(one_model) as load:
        rollout(one_model, "start", "qwen3", "--to", "engine_args.max_num_seqs=8", "--weight", "0")
        assert set(load.answers) == {"qwen3"}
        began = time.monotonic()
        rollout(one_model, "weight", "qwen3", "50")
        took_s = time.monotonic() - began
        seen = load.counted_over(6, at_least=60)
        (report,) = json.loads(rollout(one_model, "status", "qwen3", "--json"))
        answered = load.answers.total()
        # Gateways tell each other once a second; beside engines on two cores it takes longer.
        eventually(lambda: asked(one_model) >= answered, 20)
        rollout(one_model, "weight", "qwen3", "0")
        load.counted_over(2)
        at_none = load.counted_over(2)
        rollout(one_model, "weight", "qwen3", "50")
        rollout(one_model, "promote", "qwen3")
        after = load.counted_over(2)
    assert load.failures == []
    # On a busy machine; that no gateway restarted for it is asserted below.
    assert took_s < 60, "the weight took long to take effect"
    assert min(seen["qwen3"], seen["qwen3--r2"]) > 0.25 * seen.total(), seen
    assert set(at_none) == {"qwen3"}
    assert set(after) == {"qwen3--r2"}
    old, new = report["revisions"]
    assert (old["weight"], new["weight"], new["state"]) == (50, 50, "RUNNING")
    assert new["requests"] > 0
    assert (old["failed"], new["failed"]) == (0, 0)
    assert gateways(one_model) == gateway, "the gateway was restarted"
    kept = yaml.safe_load(rollout(one_model, "export"))
    names = [one["name"] for one in kept["applications"]]
    assert sorted(names) == ["gateway", "qwen3--r2"]
    assert kept["proxy_location"] == before["proxy_location"]
    abort_the_next(one_model, kept)
    # What was kept can be deployed: it is what runs.
    deploy(one_model, kept, tmp_path)
    with Load(one_model, streams=1) as load:
        load.counted_over(5)
    assert (set(load.answers), load.failures) == ({"qwen3--r2"}, [])
    assert gateways(one_model) == gateway
