"""Adapts the load policy to Ray Serve, whose own counts requests that pass through its handles only."""

from __future__ import annotations

import time
from typing import Any

from serving.autoscaling import load


class LoadPolicy:
    """A Ray Serve autoscaling policy; Ray calls it about ten times a second."""

    def __init__(self, target_requests: float, hold_s: float) -> None:
        self._target_requests = target_requests
        self._hold_s = hold_s

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        by_replica = (context.aggregated_metrics or {}).get("open_requests", {})
        return load.decide(
            sum(by_replica.values()),
            context.total_queued_requests or 0.0,
            target_requests=self._target_requests,
            minimum=context.capacity_adjusted_min_replicas,
            maximum=context.capacity_adjusted_max_replicas,
            current=context.target_num_replicas,
            now_s=context.current_time or time.time(),
            hold_s=self._hold_s,
            state=context.policy_state or {},
        )
