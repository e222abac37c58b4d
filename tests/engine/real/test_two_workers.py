"""Two workers on a CPU answer as one engine, side by side and one after the other."""

from __future__ import annotations

import orjson
import psutil
import pytest
import pytest_asyncio

from loadtests.processes.titles import below, title_of, workers_under
from serving.settings import ModelConfig
from tests.engine.real.conftest import LOOP, Running, Shared

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope=LOOP),
]

TOKENS = 16
BODY = {
    "messages": [{"role": "user", "content": "Bonjour"}],
    "max_tokens": TOKENS,
    "temperature": 0,
    "ignore_eos": True,
}


# vLLM's CPU worker makes the buffer between two stages when it warms up a compiled model, and in eager mode
# it does not warm up: pipeline parallelism on a CPU needs the tracer, and fails at the first request without.
STAGES = {
    "engine_args": {
        "pipeline_parallel_size": 2,
        "enforce_eager": False,
        "compilation_config": {"mode": 2, "backend": "eager"},
    },
    "env": {"TORCH_COMPILE_DISABLE": "0"},
}


@pytest_asyncio.fixture(loop_scope=LOOP)
async def spread_out(request: pytest.FixtureRequest, shared: Shared) -> Running:
    config = ModelConfig(id="m", catalogue="tiny-qwen3", drain_timeout_s=5, **request.param)
    return await shared.get(config)


@pytest.mark.parametrize(
    "spread_out",
    [{"engine_args": {"tensor_parallel_size": 2}}, STAGES],
    indirect=True,
    ids=["tensor", "pipeline"],
)
async def test_two_workers_answer_as_one_engine(spread_out: Running) -> None:
    status, raw = await spread_out.post("/v1/chat/completions", dict(BODY))
    assert status == 200, raw
    assert orjson.loads(raw)["usage"]["completion_tokens"] == TOKENS
    running = below(psutil.Process())
    assert len(workers_under(psutil.Process())) == 2, [title_of(one) for one in running]
    stats = await spread_out.replica.record_routing_stats()
    assert stats["generated_tokens"] >= TOKENS
