"""An engine's report on itself: a snapshot of its load, kept by a vLLM stat-logger plugin.

vLLM calls every stat logger once per scheduler step with its statistics. The entry point
`vllm.stat_logger_plugins` (vLLM's public plugin group) makes it create `EngineSignalsLogger` in the
replica's process, so a snapshot costs a few attribute reads and no scrape.
The statistics' fields are not a stable interface of vLLM: tests/engine/test_signals.py fails when they move.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class EngineSignals:
    """The load of one engine at its last scheduler step."""

    running: int = 0
    waiting: int = 0
    kv_cache_use: float = 0.0
    prefix_queried_tokens: int = 0
    prefix_hit_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    last_step_s: float = 0.0
    _window: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    WINDOW_S = 5.0
    # Steps closer together than this are counted as one, which bounds the window's length.
    BUCKET_S = 0.05

    def record(self, scheduler: Any, iteration: Any, now_s: float) -> None:
        """Take in one step; either argument may be None, as vLLM passes them."""
        self.last_step_s = now_s
        if scheduler is not None:
            self.running = scheduler.num_running_reqs
            self.waiting = scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs
            self.kv_cache_use = scheduler.kv_cache_usage
            self.prefix_queried_tokens += scheduler.prefix_cache_stats.queries
            self.prefix_hit_tokens += scheduler.prefix_cache_stats.hits
        if iteration is not None:
            self.prompt_tokens += iteration.num_prompt_tokens
            self.generated_tokens += iteration.num_generation_tokens
            self.preemptions += iteration.num_preempted_reqs
            if iteration.num_generation_tokens:
                self._count(now_s, iteration.num_generation_tokens)

    def _count(self, now_s: float, tokens: int) -> None:
        if self._window and now_s - self._window[-1][0] < self.BUCKET_S:
            began_s, before = self._window[-1]
            self._window[-1] = (began_s, before + tokens)
        else:
            self._window.append((now_s, tokens))
            self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        while self._window and self._window[0][0] < now_s - self.WINDOW_S:
            self._window.popleft()

    def tokens_per_s(self, now_s: float) -> float:
        """Generated tokens per second over the last five seconds."""
        self._forget(now_s)
        return sum(tokens for _, tokens in self._window) / self.WINDOW_S

    def snapshot(self, now_s: float) -> dict[str, float]:
        """A flat dictionary of numbers, as Ray Serve's hooks want it."""
        values = {
            name: float(value) for name, value in asdict(self).items() if not name.startswith("_")
        }
        values["tokens_per_s"] = round(self.tokens_per_s(now_s), 3)
        return values


# One engine lives in one replica process, and vLLM creates the logger: this is where the two meet.
CURRENT = EngineSignals()


def __getattr__(name: str) -> Any:
    # vLLM's base class is imported only when vLLM itself asks for the plugin, so that light processes
    # can import this module.
    if name != "EngineSignalsLogger":
        raise AttributeError(name)
    from vllm.v1.metrics.loggers import StatLoggerBase

    class EngineSignalsLogger(StatLoggerBase):
        """Feeds `CURRENT` from vLLM's scheduler steps."""

        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            self.engine_index = engine_index

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            CURRENT.record(scheduler_stats, iteration_stats, time.monotonic())

        def log_engine_initialized(self) -> None:
            pass

    globals()[name] = EngineSignalsLogger
    return EngineSignalsLogger
