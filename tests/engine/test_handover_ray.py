"""Prefill and decode apart, with real engines behind a real gateway: same words, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.processes.free_ports import free_port
from loadtests.processes.titles import below, title_of

pytestmark = [
    pytest.mark.engine,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        find_spec("nixl") is None, reason="NIXL is not installed: requirements/nixl.txt"
    ),
]
LONG = "The quick brown fox jumps over the lazy dog, and over the other one. " * 20
# In 16 bits the place of a request in a batch can change its text.
ARGS = {"dtype": "float32"}
# A replica and its engine, on a machine that has other things to do, too.
COMES_BACK_WITHIN_S = 180


@dataclass
class Site:
    """A gateway before one model with prefill replicas, `apart`, and the same one without, `whole`."""

    url: str
    door: dict[str, Any]

    async def chat(self, model: str, text: str) -> str:
        fields = {"messages": said(text), "max_tokens": 24}
        answer = await self.post("/v1/chat/completions", model, fields)
        return str(answer["choices"][0]["message"]["content"])

    async def post(self, path: str, model: str, fields: dict[str, Any]) -> dict[str, Any]:
        body = {"model": model, "temperature": 0} | fields
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def metric(self, name: str) -> float:
        """Of the gateway."""
        return _value((await self._get("/metrics")).text, name)

    async def engine_metric(self, name: str) -> float:
        """Of the engine that decodes."""
        headers = {"x-comptoir-token": self.door["token"]}
        url = f"http://{self.door['host']}:{self.door['port']}/metrics"
        async with httpx.AsyncClient(headers=headers, timeout=10) as client:
            return _value((await client.get(url)).text, name)

    async def status(self) -> dict[str, Any]:
        models = (await self._get("/status")).json()["models"]
        return {model["id"]: model for model in models}["apart"]

    async def _get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, timeout=10) as client:
            return await client.get(path)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _value(page: str, name: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


def model(name: str, **more: Any) -> Any:
    from serving.app import build_model

    common = {"id": name, "catalogue": "tiny-qwen3", "device": "cpu", "engine_args": ARGS}
    return build_model(common | {"drain_timeout_s": 5} | more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    import ray
    from ray import serve

    from serving.app import build_gateway

    cache: Path = tmp_path_factory.mktemp("cache")
    env = {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        ),
        "COMPTOIR_CACHE_DIR": str(cache),
        "COMPTOIR_REPLICA_HOST": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=100 * 1024 * 1024,
            runtime_env={"env_vars": env},
        )
        try:
            apart = model("apart", prefill={"min_prompt_tokens": 100})
            handle = serve.run(apart, name="apart", route_prefix=None)
            serve.run(model("whole"), name="whole", route_prefix=None)
            port = free_port()
            gateway = build_gateway({"port": port, "discovery_period_s": 0.5})
            serve.run(gateway, name="gateway", route_prefix=None)
            found = Site(
                f"http://127.0.0.1:{port}", handle.record_replica_metadata.remote().result()
            )
            asyncio.run(_until_prefill_is_known(found))
            yield found
        finally:
            serve.shutdown()
            ray.shutdown()


async def _until_prefill_is_known(site: Site) -> None:
    for _ in range(100):
        prefill = (await site.status())["prefill"]
        if prefill and prefill["replicas"]:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(await site.status())


FETCHED = 'vllm:prompt_tokens_by_source_total{engine="0",model_name="apart",source="external_kv'
HANDED = 'comptoir_prefills_total{model="apart",outcome="handed"}'
FAILED = 'comptoir_prefills_total{model="apart",outcome="failed"}'
PROMPT_TOKENS = 'comptoir_tokens_total{kind="prompt",model="apart"}'


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": said(LONG), "max_tokens": 24}),
        ("/v1/completions", {"prompt": LONG, "max_tokens": 24}),
        ("/v1/messages", {"messages": said("1 " + LONG), "max_tokens": 24}),
        ("/v1/responses", {"input": "2 " + LONG, "max_output_tokens": 24}),
        (
            "/v1/chat/completions",
            {
                "messages": said("3 " + LONG),
                "max_tokens": 24,
                "min_tokens": 24,
                "logprobs": True,
                "top_logprobs": 2,
                "response_format": {"type": "json_object"},
            },
        ),
    ],
)
async def test_a_long_prompt_is_computed_elsewhere_and_the_answer_is_the_same_word_for_word(
    site: Site, path: str, fields: dict[str, Any]
) -> None:
    whole = await site.post(path, "whole", fields)
    fetched, handed = await site.engine_metric(FETCHED), await site.metric(HANDED)
    apart = await site.post(path, "apart", fields)
    assert _words(apart) == _words(whole)
    assert await site.metric(HANDED) == handed + 1
    # All of it was fetched: the engine that decodes has computed none of the prompt.
    assert await site.engine_metric(FETCHED) > fetched + 300
    assert "remote_" not in str(apart)


def _words(answer: dict[str, Any]) -> Any:
    if "output" in answer:
        return [part["text"] for part in answer["output"][0]["content"]]
    if "choices" in answer:
        return [
            one.get("message", {}).get("content") or one.get("text") for one in answer["choices"]
        ]
    return [part.get("text") for part in answer["content"]]


async def test_a_stream_is_the_same_and_its_prompt_is_counted_once(site: Site) -> None:
    counted, handed = await site.metric(PROMPT_TOKENS), await site.metric(HANDED)
    body = {"messages": said("4 " + LONG), "max_tokens": 24, "temperature": 0, "stream": True}
    texts = []
    async with httpx.AsyncClient(base_url=site.url, timeout=60) as client:
        for model in ("apart", "whole"):
            asked = body | {"model": model, "stream_options": {"include_usage": True}}
            response = await client.post("/v1/chat/completions", json=asked)
            chunks = [json.loads(line[6:]) for line in response.text.splitlines() if "{" in line]
            texts.append("".join(c["choices"][0]["delta"]["content"] for c in chunks[:-1]))
            prompt_tokens = chunks[-1]["usage"]["prompt_tokens"]
    assert texts[0] == texts[1] != ""
    assert await site.metric(HANDED) == handed + 1
    assert await site.metric(PROMPT_TOKENS) == counted + prompt_tokens


async def test_a_prefill_replica_that_dies_costs_no_request_and_comes_back(site: Site) -> None:
    texts = [f"{number} is the number. {LONG}" for number in range(12)]
    expected = [await site.chat("whole", text) for text in texts]
    failed = await site.metric(FAILED)
    before = {replica["id"] for replica in (await site.status())["prefill"]["replicas"]}
    asking = [asyncio.create_task(site.chat("apart", text)) for text in texts[:6]]
    await asyncio.sleep(0.05)
    for process in _prefill_processes():
        process.kill()
    asking += [asyncio.create_task(site.chat("apart", text)) for text in texts[6:]]
    assert await asyncio.gather(*asking) == expected
    assert await site.metric(FAILED) > failed
    deadline = time.monotonic() + COMES_BACK_WITHIN_S
    while not {one["id"] for one in (await site.status())["prefill"]["replicas"]} - before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    handed = await site.metric(HANDED)
    assert await site.chat("apart", texts[0]) == expected[0]
    assert await site.metric(HANDED) == handed + 1


def _prefill_processes() -> list[psutil.Process]:
    """The replica and its engine."""
    found = below(psutil.Process())
    (replica,) = [one for one in found if ":PrefillReplica" in title_of(one)]
    return [*below(replica), replica]
