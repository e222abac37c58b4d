"""The load that an engine reports, from statistics in the form vLLM hands them over."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from serving.engine import signals
from serving.engine.signals import EngineSignals


def scheduler(running: int = 0, waiting: int = 0, skipped: int = 0, use: float = 0.0) -> Any:
    return SimpleNamespace(
        num_running_reqs=running,
        num_waiting_reqs=waiting,
        num_skipped_waiting_reqs=skipped,
        kv_cache_usage=use,
        prefix_cache_stats=SimpleNamespace(queries=10, hits=4),
    )


def iteration(prompt: int = 0, generated: int = 0, preempted: int = 0) -> Any:
    return SimpleNamespace(
        num_prompt_tokens=prompt,
        num_generation_tokens=generated,
        num_preempted_reqs=preempted,
    )


def test_a_step_sets_the_load_and_adds_to_the_totals() -> None:
    engine = EngineSignals()
    engine.record(scheduler(1, 2, 3, 0.1), iteration(100, 4, 1), 1.0)
    engine.record(scheduler(5, 0, 1, 0.5), iteration(10, 2), 2.0)
    assert (engine.running, engine.waiting, engine.kv_cache_use) == (5, 1, 0.5)
    assert (engine.prompt_tokens, engine.generated_tokens, engine.preemptions) == (110, 6, 1)
    assert (engine.prefix_queried_tokens, engine.prefix_hit_tokens) == (20, 8)
    assert engine.last_step_s == 2.0


def test_either_half_of_a_step_may_be_missing() -> None:
    engine = EngineSignals()
    engine.record(None, iteration(generated=3), 1.0)
    engine.record(scheduler(running=2), None, 2.0)
    engine.record(None, None, 3.0)
    assert (engine.running, engine.generated_tokens, engine.last_step_s) == (2, 3, 3.0)


def test_tokens_per_second_are_those_of_the_last_five_seconds() -> None:
    engine = EngineSignals()
    for second in range(20):
        engine.record(None, iteration(generated=10), float(second))
    assert engine.tokens_per_s(19.0) == pytest.approx(12.0)
    assert engine.tokens_per_s(24.0) == pytest.approx(2.0)
    assert engine.tokens_per_s(30.0) == 0.0
    assert engine.generated_tokens == 200


def test_the_window_does_not_grow() -> None:
    engine = EngineSignals()
    for step in range(20_000):
        engine.record(None, iteration(generated=1), step * 0.0001)
    assert len(engine._window) <= 4096


def test_a_snapshot_is_flat_numbers_as_rays_hooks_want_it() -> None:
    engine = EngineSignals()
    engine.record(scheduler(1, 2, 0, 0.25), iteration(8, 5), 10.0)
    snapshot = engine.snapshot(10.0)
    assert all(type(value) is float for value in snapshot.values())
    assert snapshot["running"] == 1.0
    assert snapshot["waiting"] == 2.0
    assert snapshot["kv_cache_use"] == 0.25
    assert snapshot["tokens_per_s"] == 1.0
    assert not any(name.startswith("_") for name in snapshot)


def test_a_snapshot_is_no_view_of_the_engine() -> None:
    engine = EngineSignals()
    before = engine.snapshot(0.0)
    engine.record(scheduler(running=3), None, 1.0)
    assert before["running"] == 0.0


def test_light_processes_import_it_without_vllm() -> None:
    code = "import sys, serving.engine.signals; sys.exit('vllm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_module_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = signals.nothing
