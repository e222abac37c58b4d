"""The policies under test, each behind metrics that travel as Ray Serve's do: ours, and Ray's own default."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

from loadtests.simulation.autoscaling.replicas import Fleet, Replica
from serving.autoscaling.policy import ScalerState, decide
from serving.autoscaling.signals import ReplicaSignals, Signals
from serving.config.autoscaling import AutoscalingConfig

# serving/app.py: how often replicas report, and over which time Ray takes the mean.
REPORT_S = 1.0
LOOK_BACK_S = 2.0
RECORD_S = 0.4
# Where a simulated day lies in the calendar: a Monday, midnight in UTC.
EPOCH_S = 1_767_571_200.0
_SIGNALS = tuple(one.name for one in fields(ReplicaSignals))


@dataclass
class SignalsScaler:
    """Our policy, fed with what replicas report: means over two seconds, once a second."""

    config: AutoscalingConfig
    seed: int = 1
    state: ScalerState = field(default_factory=ScalerState)
    reasons: list[tuple[float, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._points: dict[str, deque[ReplicaSignals]] = {}
        self._seen: dict[str, ReplicaSignals] = {}
        self._record_s = random.Random(self.seed).uniform(0.0, RECORD_S)
        self._report_s = random.Random(self.seed).uniform(0.0, REPORT_S)

    def tick(self, now_s: float, fleet: Fleet) -> int:
        """Record and report where it is time; decide."""
        serving = fleet.serving
        if now_s >= self._record_s:
            self._record_s += RECORD_S
            for replica in serving:
                points = self._points.setdefault(
                    replica.name, deque(maxlen=round(LOOK_BACK_S / RECORD_S))
                )
                points.append(_report(replica, fleet, now_s))
        if now_s >= self._report_s:
            self._report_s += REPORT_S
            self._seen = {
                r.name: _mean(self._points[r.name]) for r in serving if r.name in self._points
            }
        asleep = not serving and bool(fleet.queue)
        names = {replica.name for replica in serving}
        signals = Signals(
            replicas={name: seen for name, seen in self._seen.items() if name in names},
            running=len(serving),
            target=fleet.target,
            queued=1.0 if asleep else 0.0,
        )
        replicas, self.state, reason = decide(signals, self.config, self.state, EPOCH_S + now_s)
        if replicas != fleet.target:
            self.reasons.append((now_s, replicas, reason))
        return replicas


def _report(replica: Replica, fleet: Fleet, now_s: float) -> ReplicaSignals:
    model = fleet.model
    batch = len(replica.batch)
    held = batch * (model.prompt_tokens + model.mean_tokens / 2)
    return ReplicaSignals(
        open_requests=replica.open_requests,
        running=batch,
        waiting=len(replica.waiting),
        kv_cache_use=min(1.0, held / model.kv_tokens),
        tokens_per_s=batch / model.gap_s(batch),
        arrived_requests=replica.arrived,
        gateway_queue=replica.gateway_queue(now_s),
        start_s=model.cold_start_s if model.reported_start_s is None else model.reported_start_s,
    )


def _mean(points: deque[ReplicaSignals]) -> ReplicaSignals:
    values = {name: [getattr(point, name) for point in points] for name in _SIGNALS}
    return ReplicaSignals(
        **{name: sum(each) / len(each) for name, each in values.items() if each[0] is not None}
    )


class RayScaler:
    """Ray Serve's default policy, called in the installed package.

    Requests are counted as if they went through Serve's handles, which record and report at Ray's own pace;
    Serve's mean over time, scaling factors, delays and bounds come around the policy as in Ray's controller.

    Args:
        target_requests: `target_ongoing_requests`.
        options: of Ray's `AutoscalingConfig`, where they differ from Ray's defaults.
    """

    def __init__(
        self, target_requests: float, minimum: int, maximum: int, seed: int = 1, **options: Any
    ) -> None:
        # Importing Ray takes a second, which nobody else has to pay.
        from ray.serve import autoscaling_policy
        from ray.serve.config import AutoscalingConfig as RayConfig
        from ray.serve.config import AutoscalingContext

        self._ray: Any = autoscaling_policy
        self._context: Any = AutoscalingContext
        self.config: Any = RayConfig(
            min_replicas=minimum,
            max_replicas=maximum,
            target_ongoing_requests=target_requests,
            **options,
        )
        # ray/serve/_private/router.py: the interval of records follows the look-back.
        self._record_every_s = min(
            self.config.look_back_period_s * 0.2, self.config.metrics_interval_s
        )
        draw = random.Random(seed)
        self._record_s = draw.uniform(0.0, self._record_every_s)
        self._report_s = draw.uniform(0.0, self.config.metrics_interval_s)
        self._points: deque[tuple[float, float]] = deque()
        self._reported: list[tuple[float, float]] = []
        self._state: dict[str, Any] = {}

    def tick(self, now_s: float, fleet: Fleet) -> int:
        """Record and report where it is time; decide."""
        asleep = not fleet.serving and bool(fleet.queue)
        if now_s >= self._record_s or asleep:
            self._record_s = max(self._record_s, now_s) + self._record_every_s
            self._points.append((now_s, float(fleet.requests)))
        # A handle without replicas reports its first request at once.
        if now_s >= self._report_s or asleep:
            self._report_s = max(self._report_s, now_s) + self.config.metrics_interval_s
            while self._points and self._points[0][0] < now_s - self.config.look_back_period_s:
                self._points.popleft()
            self._reported = list(self._points)
        return self._decide(now_s, fleet, asleep)

    def _decide(self, now_s: float, fleet: Fleet, asleep: bool) -> int:
        total = weighted_mean(self._reported, now_s)
        context = self._context(
            deployment_id=None,
            deployment_name="model",
            app_name="model",
            current_num_replicas=len(fleet.serving),
            target_num_replicas=fleet.target,
            running_replicas=[],
            total_num_requests=total,
            total_queued_requests=float(len(fleet.queue)) if asleep else 0.0,
            aggregated_metrics={},
            raw_metrics={},
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now_s,
            config=self.config,
        )
        replicas = self.decide(context, now_s)
        return int(max(self.config.min_replicas, min(self.config.max_replicas, replicas)))

    def decide(self, context: Any, now_s: float) -> int:
        """Ray's `_apply_autoscaling_config` around its default policy, with our clock in place of Ray's."""
        wanted, state = self._ray.default_autoscaling_policy(context)
        if context.current_num_replicas == 0 and context.total_num_requests > 0:
            return int(wanted)
        scaled = self._ray._apply_scaling_factors(
            wanted, context.current_num_replicas, context.config
        )
        if context.current_num_replicas == 0 and scaled > 0:
            return int(scaled)
        replicas, state = self._ray._apply_delay_logic(
            max(0, scaled),
            context.target_num_replicas,
            context.config,
            self._ray._extract_internal_policy_state(context.policy_state),
            _now=now_s,
        )
        self._state = state
        return math.ceil(float(replicas))


def weighted_mean(points: list[tuple[float, float]], now_s: float) -> float:
    """Ray's mean of a metric: each value until the next, the last until now."""
    if not points:
        return 0.0
    ends = [time_s for time_s, _ in points[1:]] + [max(now_s, points[-1][0] + 1e-3)]
    total = sum(value * (end - at) for (at, value), end in zip(points, ends, strict=True))
    return total / (ends[-1] - points[0][0])
