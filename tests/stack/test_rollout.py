"""A rollout under load: start, half, nothing, half, promote. No request may fail, no stream be cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import yaml

from serving.commands import processes
from tests.stack.conftest import ROOT, Stack, start, stop
from tests.stack.test_changes_and_faults import deploy

SITE = {
    "proxy_location": "Disabled",
    "logging_config": {"enable_access_log": False},
    "applications": [
        {
            "name": "gateway",
            "route_prefix": None,
            "import_path": "serving.app:build_gateway",
            "args": {"host": "127.0.0.1", "port": 8000},
        },
        {
            "name": "qwen3",
            "route_prefix": None,
            "import_path": "serving.app:build_model",
            "args": {"id": "qwen3", "catalogue": "tiny-qwen3"},
        },
    ],
}
TOKENS = 150
MESSAGES: list[Any] = [{"role": "user", "content": "Tell me something long"}]


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


class Load:
    """Clients that never rest: streams that must be whole, each in a session of its own."""

    def __init__(self, stack: Stack, clients: int = 3) -> None:
        self._url = f"{stack.url}/v1"
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _work(self, number: int) -> None:
        client = openai.OpenAI(base_url=self._url, api_key="none", max_retries=0)
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                self._ask(client, f"{number}-{turn}")
            except openai.OpenAIError as error:
                self.failures.append(repr(error))

    def _ask(self, client: openai.OpenAI, session: str) -> None:
        with client.chat.completions.with_streaming_response.create(
            model="qwen3",
            messages=MESSAGES,
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-comptoir-session": session},
            extra_body={"ignore_eos": True},
        ) as response:
            tokens, done = 0, False
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            model = response.headers["x-comptoir-model"]
        if not done or tokens != TOKENS:
            self.failures.append(f"{model}: a stream of {tokens} tokens, complete: {done}")
        self.answers[model] += 1

    def counted_over(self, seconds: float) -> Counter[str]:
        """Who answers during the next seconds."""
        before = Counter(self.answers)
        time.sleep(seconds)
        return self.answers - before


def rollout(stack: Stack, *args: str) -> str:
    """What an operator types."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "rollout", *args, "--port", str(stack.port)],
        cwd=ROOT,
        env=os.environ | {"COMPTOIR_CACHE_DIR": str(stack.cache_dir)},
        capture_output=True,
        text=True,
        timeout=140,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def gateways(stack: Stack) -> set[int]:
    """Process ids of the gateway's replicas."""
    found = set()
    for process in processes.of_stack(stack.state.stack_id, stack.port):
        try:
            if ":GatewayReplica" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(280)
def test_a_rollout_fails_no_request_and_cuts_no_stream(one_model: Stack, tmp_path: Path) -> None:
    before = yaml.safe_load(rollout(one_model, "export"))
    gateway = gateways(one_model)
    with Load(one_model) as load:
        rollout(one_model, "start", "qwen3", "--to", "engine_args.max_num_seqs=8", "--weight", "0")
        assert set(load.answers) == {"qwen3"}
        began = time.monotonic()
        rollout(one_model, "weight", "qwen3", "50")
        took_s = time.monotonic() - began
        seen = load.counted_over(6)
        (report,) = json.loads(rollout(one_model, "status", "qwen3", "--json"))
        rollout(one_model, "weight", "qwen3", "0")
        load.counted_over(2)
        at_none = load.counted_over(2)
        rollout(one_model, "weight", "qwen3", "50")
        rollout(one_model, "promote", "qwen3")
        after = load.counted_over(2)
    assert load.failures == []
    assert took_s < 15, "the weight took long to take effect"
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
    # What was kept can be deployed: it is what runs.
    deploy(one_model, kept, tmp_path)
    with Load(one_model, clients=1) as load:
        load.counted_over(5)
    assert (set(load.answers), load.failures) == ({"qwen3--r2"}, [])
    assert gateways(one_model) == gateway
