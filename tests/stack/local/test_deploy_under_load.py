"""`serve deploy` under load, twice: one model is added, one changed, one removed, one left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from serving.commands.stack import ray_api
from serving.environment import cluster_environment
from tests.stack.conftest import ROOT, Stack
from tests.stack.deploying import deploy, eventually
from tests.stack.load import MESSAGES, Load
from tests.stack.local.test_changes_and_faults import replicas

KEPT, CHANGED, ADDED, REMOVED = "deepseek-v3", "qwen3", "yi", "qwen3-embedding"
# Two deploys with two engines each, on two cores that also answer and may have other things to do.
DEPLOY_S = 400.0
# A gateway looks at Serve this often, and the look itself takes a moment on a busy machine.
DISCOVERY_S = 2.0 + 2.0
pytestmark = pytest.mark.timeout(1200)


def other_args(site: dict[str, Any], **engine_args: Any) -> dict[str, Any]:
    """The file with other engine arguments for the model that is changed."""
    applications = [
        one | {"args": one["args"] | {"engine_args": engine_args}}
        if one["name"] == CHANGED
        else one
        for one in site["applications"]
    ]
    return site | {"applications": applications}


def other_site(original: dict[str, Any]) -> dict[str, Any]:
    """The file with one model added, one changed, one removed."""
    changed = other_args(original, max_model_len=512)["applications"]
    applications = [one for one in changed if one["name"] != REMOVED]
    like = next(one for one in applications if one["name"] == KEPT)
    args = like["args"] | {"id": ADDED, "catalogue": f"tiny-{ADDED}"}
    return original | {"applications": [*applications, like | {"name": ADDED, "args": args}]}


def ask(stack: Stack, model: str) -> httpx.Response:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 4}
    return httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=30)


def embed(stack: Stack) -> httpx.Response:
    body = {"model": REMOVED, "input": "Bonjour"}
    return httpx.post(f"{stack.url}/v1/embeddings", json=body, timeout=30)


def deployed(stack: Stack, document: dict[str, Any], folder: Path) -> float:
    """Deploy and wait until it is so: each model answers, and the changed one has no old replica."""
    old = replicas(stack)[CHANGED]
    wanted = {one["name"] for one in document["applications"]} - {"gateway"}
    deploy(stack, document, folder)

    def is_so() -> bool:
        models = httpx.get(f"{stack.url}/ready?all=1", timeout=30).json()["models"]
        return dict.fromkeys(wanted, "ready") == models and not psutil.pid_exists(old)

    return eventually(is_so, DEPLOY_S)


def max_model_len(stack: Stack, model: str) -> int:
    return int(httpx.get(f"{stack.url}/v1/models/{model}").json()["max_model_len"])


def only_refused(removed: Load) -> None:
    """No answer that had begun was cut; then came 404, after a moment of 503 with Retry-After at most."""
    assert removed.answers.total() > 0
    assert {failure.status for failure in removed.failures} <= {404, 503}, removed.failures
    refused = [failure.status for failure in removed.failures]
    assert refused[-1] == 404
    unsure = [failure.at_s for failure in removed.failures if failure.status == 503]
    assert not unsure or unsure[-1] - removed.failures[0].at_s < DISCOVERY_S, removed.failures


def test_a_deploy_fails_only_requests_to_the_model_that_it_removes(
    stack: Stack, tmp_path: Path
) -> None:
    original = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    eventually(lambda: len(replicas(stack)) == 3, timeout_s=60)
    before, length = replicas(stack), max_model_len(stack, CHANGED)
    with (
        Load(stack, KEPT, streams=1, whole=1, pace_s=0.5) as kept,
        Load(stack, CHANGED, streams=1, whole=1, pace_s=0.5) as changed,
    ):
        there_s = deployed(stack, other_site(original), tmp_path)
        middle = replicas(stack)
        assert max_model_len(stack, CHANGED) == 512
        assert ask(stack, ADDED).status_code == 200
        assert embed(stack).status_code == 404
        with Load(stack, ADDED, streams=1, whole=1, pace_s=0.5) as passing:
            passing.counted_over(3)
            back_s = deployed(stack, original, tmp_path)
    print(
        f"\nfailed requests of {KEPT} (left alone): {len(kept.failures)} of {kept.answers.total()}; "
        f"of {CHANGED} (changed twice): {len(changed.failures)} of {changed.answers.total()}\n"
        f"longest silence: {kept.longest_wait_s:.1f} s and {changed.longest_wait_s:.1f} s; "
        f"the deploys took {there_s:.0f} s and {back_s:.0f} s"
    )
    after = replicas(stack)
    assert (kept.failures, changed.failures) == ([], [])
    assert min(kept.answers.total(), changed.answers.total()) > 20
    # An engine takes many times as long to start. Both models shared the machine with those that did.
    assert changed.longest_wait_s < 2 * kept.longest_wait_s + 2
    assert before[KEPT] == middle[KEPT] == after[KEPT]
    assert len({before[CHANGED], middle[CHANGED], after[CHANGED]}) == 3
    assert max_model_len(stack, CHANGED) == length
    assert embed(stack).status_code == 200
    only_refused(passing)


def test_a_change_that_does_not_start_leaves_the_old_replica_serving(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster_environment().items():
        monkeypatch.setenv(name, value)
    original = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    before = replicas(stack)

    def state() -> str:
        found = ray_api.applications(stack.state.dashboard)
        return str(found.get(CHANGED, {}).get("status"))

    with Load(stack, CHANGED, streams=1, pace_s=0.5) as load:
        deploy(stack, other_args(original, max_model_len=100_000_000), tmp_path)
        # Serve tries three times.
        eventually(lambda: state() == "DEPLOY_FAILED", DEPLOY_S)
        load.counted_over(2)
        deploy(stack, original, tmp_path)
        eventually(lambda: state() == "RUNNING", 120)
        load.counted_over(2)
    assert load.failures == []
    assert load.answers.total() > 5
    assert replicas(stack) == before
