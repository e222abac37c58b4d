"""What must not disturb a running stack: another model's arrival, a crash, a client that leaves."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from loadtests.processes.titles import engines_under, title_of
from serving.commands.stack import processes
from tests.lazily import lazily
from tests.stack.conftest import CANARY, ROOT, Stack
from tests.stack.deploying import deploy, eventually

openai = lazily("openai")

# How long a model may take to start, and to end, on a machine that has other things to do.
START_S, END_S = 300.0, 120.0
pytestmark = pytest.mark.timeout(900)
# With the canary: a dying engine dumps its state, which must not hold prompts (test_privacy.py).
MESSAGES: list[Any] = [{"role": "user", "content": f"Tell me something long: {CANARY}"}]


def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)


def replicas(stack: Stack) -> dict[str, int]:
    """Process id of each model's replica, by model; one that is ending, without an engine, is left out.

    Ray renames its processes while they run, and one look may come in the middle of that: two must agree.
    """
    before, now = None, _look(stack)
    while now != before:
        before, now = now, _look(stack)
    return now


def _look(stack: Stack) -> dict[str, int]:
    found = {}
    for process in processes.of_stack(stack.state.stack_id, stack.port):
        title = title_of(process)
        is_replica = title.startswith("ray::ServeReplica:") and ":ModelReplica" in title
        if is_replica and engines_under(process):
            found[title.split(":")[3]] = process.pid
    return found


def kill_engine_of(pid: int) -> None:
    """What an out-of-memory killer does."""
    (engine,) = engines_under(psutil.Process(pid))
    engine.send_signal(signal.SIGKILL)


def test_adding_and_removing_a_model_leaves_the_others_alone(stack: Stack, tmp_path: Path) -> None:
    eventually(lambda: len(replicas(stack)) == 3, timeout_s=60)
    before = replicas(stack)
    assert set(before) == {"qwen3", "deepseek-v3", "qwen3-embedding"}
    original = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    more = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    more["applications"].append(
        {
            "name": "yi",
            "route_prefix": None,
            "import_path": "serving.app:build_model",
            "args": {"id": "yi", "catalogue": "tiny-yi"},
        }
    )
    texts: list[str] = []
    stop = threading.Event()

    def stream_on() -> None:
        while not stop.is_set():
            stream = client(stack).chat.completions.create(
                model="qwen3",
                messages=MESSAGES,
                max_tokens=400,
                temperature=0,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            texts.append("".join(c.choices[0].delta.content or "" for c in stream if c.choices))

    streaming = threading.Thread(target=stream_on)
    streaming.start()
    try:
        deploy(stack, more, tmp_path)

        def arrived() -> bool:
            return httpx.get(f"{stack.url}/ready?all=1").json()["models"].get("yi") == "ready"

        eventually(arrived, START_S)
        answer = client(stack).chat.completions.create(model="yi", messages=MESSAGES, max_tokens=4)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
        deploy(stack, original, tmp_path)
        eventually(
            lambda: "yi" not in httpx.get(f"{stack.url}/ready?all=1").json()["models"], END_S
        )
    finally:
        stop.set()
        streaming.join(timeout=60)
    with pytest.raises(openai.NotFoundError):
        client(stack).chat.completions.create(model="yi", messages=MESSAGES)
    assert len(set(texts)) == 1, "a stream was cut or changed"
    # Nobody reaches the removed model any more; its processes end a little later.
    eventually(lambda: "yi" not in replicas(stack), END_S)
    assert replicas(stack) == before


def test_a_killed_engine_is_replaced_while_the_other_models_answer(stack: Stack) -> None:
    before = replicas(stack)
    kill_engine_of(before["deepseek-v3"])
    began = time.monotonic()
    seen: set[int] = set()
    recovered = False
    while not recovered:
        assert time.monotonic() - began < START_S, "the replica was not replaced"
        other = client(stack).chat.completions.create(
            model="qwen3", messages=MESSAGES, max_tokens=4
        )
        assert other.choices
        asked = time.monotonic()
        response = httpx.post(
            f"{stack.url}/v1/chat/completions",
            json={"model": "deepseek-v3", "messages": MESSAGES, "max_tokens": 4},
            timeout=90,
        )
        # It is held until the new engine is there, or for `max_wait_s`.
        assert time.monotonic() - asked < 75, "a request hung"
        seen.add(response.status_code)
        if response.status_code == 503:
            assert int(response.headers["retry-after"]) > 0
        now = replicas(stack)
        recovered = response.status_code == 200 and now.keys() == before.keys() and now != before
        time.sleep(0.5)
    assert seen <= {200, 503}
    after = replicas(stack)
    assert after["deepseek-v3"] != before["deepseek-v3"]
    assert after["qwen3"] == before["qwen3"]


def test_a_stream_whose_engine_dies_ends_with_an_error_event(stack: Stack) -> None:
    before = replicas(stack)
    stream = client(stack).chat.completions.create(
        model="deepseek-v3",
        messages=MESSAGES,
        max_tokens=4000,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    kill_engine_of(before["deepseek-v3"])
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass

    def back() -> bool:
        now = replicas(stack)
        ready = httpx.get(f"{stack.url}/ready?all=1").status_code == 200
        return ready and now.keys() == before.keys() and now != before

    eventually(back, START_S)


def test_deploying_the_same_file_again_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    before = replicas(stack)
    deploy(stack, yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text()), tmp_path)
    time.sleep(5)
    assert replicas(stack) == before
    assert httpx.get(f"{stack.url}/ready?all=1").status_code == 200


def test_a_model_that_sleeps_wakes_for_a_request(stack: Stack, tmp_path: Path) -> None:
    original = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    more = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    sleeper = {
        "id": "yi",
        "catalogue": "tiny-yi",
        "replicas": {"min": 0, "max": 1, "hold_s": 2.0},
    }
    more["applications"].append(
        {
            "name": "yi",
            "route_prefix": None,
            "import_path": "serving.app:build_model",
            "args": sleeper,
        }
    )
    deploy(stack, more, tmp_path)

    def state() -> str:
        models: dict[str, str] = httpx.get(f"{stack.url}/ready?all=1").json()["models"]
        return models.get("yi", "unknown")

    def ask() -> httpx.Response:
        body = {"model": "yi", "messages": MESSAGES, "max_tokens": 4}
        # A busy machine may need longer than requests are held by default.
        headers = {"x-comptoir-deadline-ms": str(round(START_S * 1000))}
        url = f"{stack.url}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=START_S + 30)

    try:
        # It sleeps from the start: to look at it wakes nobody.
        eventually(lambda: state() == "idle", START_S)
        # The request is held while it wakes, not refused; then it falls asleep again.
        assert ask().status_code == 200
        eventually(lambda: state() == "idle", END_S)
    finally:
        deploy(stack, original, tmp_path)
        eventually(lambda: state() == "unknown", END_S)
