"""vLLM's own scheduler, slowed down: a step of the engine takes as long as one of a large model on a GPU.

Steps of a tiny model keep a core busy, so on a small machine two replicas would wait for cores, not for each
other's slots. Here the engine waits as it would for a GPU, and capacity is slots over time again. Everything
else is vLLM's: batching, queue, KV cache. `scheduler_cls` of its engine arguments names this class.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class PacedScheduler(Scheduler):  # type: ignore[misc]  # vLLM is Any to mypy
    """Waits in every step that works on something."""

    step_s = 0.05

    def schedule(self, *arguments: Any, **options: Any) -> Any:
        """The engine's next step, after a pause."""
        output = super().schedule(*arguments, **options)
        if output.total_num_scheduled_tokens:
            time.sleep(self.step_s)
        return output


class QuickScheduler(PacedScheduler):
    """Waits less: more answers in the same time, where many are to be measured."""

    step_s = 0.02
