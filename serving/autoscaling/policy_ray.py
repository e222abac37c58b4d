"""Adapts the policy to Ray Serve, whose own policy counts only requests through its handles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ray.util import metrics

from serving.autoscaling.policy import ScalerState, decide
from serving.autoscaling.signals import ReplicaSignals, Signals
from serving.config.autoscaling import AutoscalingConfig

logger = logging.getLogger("ray.serve.comptoir")

_NAMES = tuple(field.name for field in fields(ReplicaSignals))


class SignalsPolicy:
    """A Ray Serve autoscaling policy, called in the controller about ten times a second.

    Args:
        config: `AutoscalingConfig` as JSON has it; Ray passes `policy_kwargs` on.
        clock: monotonic seconds: a step of the time of day would cut `hold_s` short.
    """

    def __init__(
        self, config: Mapping[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._config = AutoscalingConfig.model_validate(dict(config))
        self._changes = metrics.Counter(
            "comptoir_autoscaling_changes",
            description="Changes of a model's target number of replicas, by reason.",
            tag_keys=("model", "reason"),
        )

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and the state that Ray passes to the next call: `scaler`, `reason`."""
        # A target capacity below 100 % moves the bounds.
        config = self._config.model_copy(
            update={
                "min": context.capacity_adjusted_min_replicas,
                "max": context.capacity_adjusted_max_replicas,
            }
        )
        decision = decide(
            signals_from(context),
            config,
            (context.policy_state or {}).get("scaler", ScalerState()),
            self._clock(),
            context.current_time or time.time(),
        )
        if decision.replicas != context.target_num_replicas:
            logger.info(
                "%s: from %d to %d replicas (%s)",
                context.app_name,
                context.target_num_replicas,
                decision.replicas,
                decision.reason,
            )
            self._changes.inc(tags={"model": context.app_name, "reason": decision.reason})
        return decision.replicas, {"scaler": decision.state, "reason": decision.reason}


def signals_from(context: Any) -> Signals:
    """The signals in an `AutoscalingContext`: statistics that replicas recorded, by name and replica."""
    metrics: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
    by_replica: dict[str, dict[str, float]] = {}
    for name in _NAMES:
        for replica, value in metrics.get(name, {}).items():
            by_replica.setdefault(str(replica), {})[name] = float(value)
    return Signals(
        replicas={replica: ReplicaSignals(**values) for replica, values in by_replica.items()},
        running=context.current_num_replicas,
        target=context.target_num_replicas,
        queued=context.total_queued_requests or 0.0,
    )
