"""Fails when a private corner of ray.llm or vLLM that serving/engine/internals.py relies on has moved."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytest

from serving.engine.signals import EngineSignals
from serving.engine_plan.plan import EnginePlan
from serving.replica_facts import ModelCard

pytestmark = pytest.mark.engine


def test_rays_engine_has_what_the_lean_engine_overrides() -> None:
    from serving.engine.internals import LeanVLLMEngine

    parent = LeanVLLMEngine.__mro__[1]
    assert list(inspect.signature(parent._prepare_engine_config).parameters) == [
        "self",
        "callback_ctx",
    ]
    source = inspect.getsource(parent.start)
    assert "self._prepare_engine_config(callback.ctx)" in source
    assert "callback.ctx.run_init_node" in source
    assert "self._engine_client = self._start_async_llm_engine(" in source
    assert "Executor.get_class(vllm_engine_config)" in inspect.getsource(
        parent._start_async_llm_engine
    )
    assert inspect.iscoroutinefunction(parent.build_asgi_app)
    assert inspect.iscoroutinefunction(parent.shutdown)


def test_rays_server_has_what_the_model_server_overrides() -> None:
    from serving.engine.internals import LeanVLLMEngine
    from serving.engine.model_server import ModelServer

    parent: Any = ModelServer.__mro__[1]
    assert inspect.iscoroutinefunction(parent._start_engine)
    assert parent._default_engine_cls is None
    assert ModelServer._get_default_engine_class(ModelServer.__new__(ModelServer)) is LeanVLLMEngine
    # The override leaves out telemetry and nothing else.
    lines = inspect.getsource(parent._start_engine)
    assert "await self.engine.start()" in lines
    assert "push_telemetry_report_for_all_models" in lines


def test_vllms_client_has_what_the_lean_engine_reads() -> None:
    from vllm.v1.engine.async_llm import AsyncLLM

    assert isinstance(AsyncLLM.errored, property)
    assert callable(AsyncLLM.shutdown)


def test_vllms_chat_handler_has_what_the_direct_way_calls_and_wraps() -> None:
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.envs import disable_envs_cache, enable_envs_cache
    from vllm.parser.abstract_parser import DelegatingParser
    from vllm.reasoning import ReasoningParser
    from vllm.tool_parsers import ToolParser

    called = inspect.signature(OpenAIServingChat.create_chat_completion)
    assert list(called.parameters) == ["self", "request", "raw_request"]
    assert inspect.isasyncgenfunction(OpenAIServingChat.chat_completion_stream_generator)
    wrapped = inspect.signature(OpenAIServingChat.chat_completion_stream_generator)
    assert list(wrapped.parameters)[:3] == ["self", "request", "result_generator"]
    source = inspect.getsource(OpenAIServingChat.chat_completion_stream_generator)
    # The handler counts what `_Stream.rendering` hands on, and reads nothing else of a result it never sees.
    assert "previous_num_tokens[i] += len(output.token_ids)" in source
    for name in ("tool_parser_cls", "reasoning_parser_cls"):
        assert getattr(DelegatingParser, name) is None
    assert ToolParser.engine_based_streaming is ReasoningParser.engine_based_streaming is False
    enable_envs_cache()
    disable_envs_cache()


def test_vllm_says_that_an_engine_is_dead_in_the_words_the_gateway_knows() -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    from serving.gateway.engine_errors import ENGINE_DEAD

    assert ENGINE_DEAD.decode() in str(EngineDeadError())


def test_the_signals_read_fields_that_vllms_statistics_have() -> None:
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats

    scheduler = SchedulerStats(num_running_reqs=2, num_waiting_reqs=3, kv_cache_usage=0.5)
    scheduler.num_skipped_waiting_reqs = 1
    scheduler.prefix_cache_stats.queries = 10
    scheduler.prefix_cache_stats.hits = 4
    iteration = IterationStats()
    iteration.num_generation_tokens = 7
    signals = EngineSignals()
    signals.record(scheduler, iteration, 100.0)
    stats = signals.snapshot(100.0)
    assert (stats["running"], stats["waiting"], stats["kv_cache_use"]) == (2, 4, 0.5)
    assert (stats["prefix_queried_tokens"], stats["prefix_hit_tokens"]) == (10, 4)
    assert stats["generated_tokens"] == 7
    assert stats["tokens_per_s"] == pytest.approx(1.4)


def test_vllm_loads_the_signals_logger() -> None:
    from vllm.v1.metrics.loggers import load_stat_logger_plugin_factories

    names = [factory.__name__ for factory in load_stat_logger_plugin_factories()]  # type: ignore[union-attr]
    assert "EngineSignalsLogger" in names


def test_the_listening_router_gets_what_it_reads() -> None:
    from ray.serve.request_router import RequestRouter, RunningReplica

    from serving.discovery.listening_router_ray import ListeningRouter

    assert issubclass(ListeningRouter, RequestRouter)
    assert "_deployment_id" in inspect.getsource(RequestRouter.__init__)
    for name in ("replica_metadata", "routing_stats", "replica_id"):
        assert isinstance(getattr(RunningReplica, name), property)


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (4, 1), (2, 2)])
def test_gpu_placement_is_what_ray_llm_would_ask_for(
    tensor: int, pipeline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.llm import LLMConfig

    from serving.engine.model_server import ModelServer

    plan = EnginePlan(
        model_id="big",
        device="gpu",
        source="vendor/big",
        engine_args={"tensor_parallel_size": tensor, "pipeline_parallel_size": pipeline},
        env={},
        card=ModelCard(),
        accelerator_type="H200",
        cache_dir=Path(),
    )

    class Context:
        runtime_env: dict[str, Any] = {}  # noqa: RUF012

    monkeypatch.setattr("ray.get_runtime_context", Context)
    config = LLMConfig(**plan.llm_config("vendor/big"))
    theirs = ModelServer.get_deployment_options(config)
    assert plan.placement_bundles == theirs["placement_group_bundles"]
    assert theirs["placement_group_strategy"] == "PACK"
    assert plan.gpus == tensor * pipeline


def test_vllms_logging_leaves_the_handlers_of_the_process_alone() -> None:
    # Ray Serve's handler among them: `is_allocated`, which a restarted controller calls, reads its file.
    import subprocess
    import sys

    from serving.engine_plan.environment import COMMON_ENV

    program = """
import logging, logging.handlers
target = logging.NullHandler()
handler = logging.handlers.MemoryHandler(1, target=target)
logging.getLogger("ray.serve").addHandler(handler)
from vllm.config.logging import LoggingConfig
from vllm.logger import configure_logging
configure_logging(LoggingConfig())
assert handler.target is target, "closed"
assert logging.getLogger("vllm").getEffectiveLevel() == logging.ERROR
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | COMMON_ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]


def test_the_messages_that_are_let_through_are_vllms() -> None:
    """Each stands in the source of its logger's module, in one piece, as the message of a log call."""
    import ast
    import importlib.util

    from serving.engine.quiet import MESSAGES, WHOLE

    for logger, message in MESSAGES | WHOLE:
        spec = importlib.util.find_spec(logger)
        assert spec is not None, logger
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
        logged = {
            node.args[0].value
            for node in calls
            if isinstance(node.func, ast.Attribute)
            and node.func.attr in ("error", "exception")
            and isinstance(node.args[0], ast.Constant)
        }
        assert message in logged, (logger, message)


def test_vllm_loads_our_plugin_in_each_of_its_processes() -> None:
    from vllm.plugins import DEFAULT_PLUGINS_GROUP, load_plugins_by_group

    from serving.engine import quiet

    assert load_plugins_by_group(DEFAULT_PLUGINS_GROUP)["comptoir"] is quiet.silence
