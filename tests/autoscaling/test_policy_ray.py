"""The adapter, with Ray Serve's own wrapper around it."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

import pytest
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig as RayConfig
from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from serving.autoscaling.policy_ray import SignalsPolicy, signals_from
from serving.autoscaling.signals import ReplicaSignals
from serving.config.autoscaling import AutoscalingConfig
from serving.replica_facts import ReplicaStats


def context(**changes: Any) -> AutoscalingContext:
    facts: dict[str, Any] = {
        "deployment_id": None,
        "deployment_name": "ModelReplica",
        "app_name": "qwen3",
        "current_num_replicas": 1,
        "target_num_replicas": 1,
        "running_replicas": [],
        "total_num_requests": 0.0,
        "total_queued_requests": 0.0,
        "aggregated_metrics": {},
        "raw_metrics": {},
        "capacity_adjusted_min_replicas": 0,
        "capacity_adjusted_max_replicas": 8,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": time.time(),
        "config": RayConfig(min_replicas=0, max_replicas=8, upscale_delay_s=0, downscale_delay_s=0),
    }
    return AutoscalingContext(**facts | changes)


class Clock:
    """A clock that stands until it is told otherwise."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def policy(clock: Clock | None = None, **replicas: Any) -> SignalsPolicy:
    config = {"min": 0, "max": 8, "target_requests": 10} | replicas
    return SignalsPolicy(config, clock or Clock())


def test_it_reads_what_replicas_record() -> None:
    signals = signals_from(
        context(
            aggregated_metrics={
                "open_requests": {"a": 30.0, "b": 12.0},
                "waiting": {"a": 5.0},
                "gateway_queue": {"b": 7.0},
                "start_s": {"a": 31.5},
                "preemptions": {"a": 1.0},
            },
            total_queued_requests=2.0,
        )
    )
    assert (signals.open_requests, signals.backlog, signals.queued) == (42.0, 12.0, 2.0)
    assert signals.replicas["a"].start_s == 31.5
    assert signals.replicas["b"].arrived_requests is None


def test_it_stands_replicas_that_have_not_reported() -> None:
    assert policy()(context(aggregated_metrics=None, total_queued_requests=None))[0] == 1
    assert policy()(context(current_num_replicas=0, target_num_replicas=0))[0] == 0


def test_serves_bounds_win_over_the_configs() -> None:
    load = {"open_requests": {"a": 900.0}}
    assert policy()(context(aggregated_metrics=load))[0] == 8
    half = context(aggregated_metrics=load, capacity_adjusted_max_replicas=4)
    assert policy()(half)[0] == 4


def test_its_state_comes_back_through_serve() -> None:
    clock = Clock()
    scale = _apply_autoscaling_config(policy(clock, hold_s=60.0))
    wanted, state = scale(context(aggregated_metrics={"open_requests": {"a": 55.0}}))
    assert (wanted, state["reason"]) == (6, "load")
    quiet = {"open_requests": {"a": 5.0}}
    for later_s, expected in ((1, 6), (59, 6), (61, 1)):
        clock.now_s = later_s
        wanted, state = scale(
            context(
                aggregated_metrics=quiet,
                current_num_replicas=6,
                target_num_replicas=6,
                policy_state=state,
            )
        )
        assert wanted == expected


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_time_of_day_ends_nothing_that_is_held(step_s: float) -> None:
    clock = Clock()
    scale = _apply_autoscaling_config(policy(clock, hold_s=60.0))
    _, state = scale(context(aggregated_metrics={"open_requests": {"a": 55.0}}))
    clock.now_s = 2.0
    wanted, state = scale(
        context(
            aggregated_metrics={"open_requests": {"a": 5.0}},
            current_num_replicas=6,
            target_num_replicas=6,
            policy_state=state,
            current_time=time.time() + step_s,
        )
    )
    assert (wanted, state["reason"]) == (6, "hold")


def test_a_sleeping_model_wakes_through_serve() -> None:
    scale = _apply_autoscaling_config(policy())
    asleep: dict[str, Any] = {"current_num_replicas": 0, "target_num_replicas": 0}
    assert scale(context(**asleep))[0] == 0
    assert scale(context(**asleep, total_num_requests=1.0, total_queued_requests=1.0))[0] == 1


def test_serve_can_load_it_with_the_config_as_json() -> None:
    config = AutoscalingConfig.model_validate(
        {"max": 3, "schedules": [{"from": "08:00", "to": "18:00", "min": 2}]}
    )
    described = AutoscalingPolicy(
        policy_function="serving.autoscaling.policy_ray:SignalsPolicy",
        policy_kwargs={"config": config.model_dump(mode="json")},
    )
    sent = AutoscalingPolicy.from_serialized_policy_def(
        described.model_dump(), described.get_serialized_policy_def()
    )
    assert _resolve_policy_callable(sent)(context())[0] >= 1


def test_changes_are_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[dict[str, str]] = []
    scaler = policy()
    monkeypatch.setattr(scaler._changes, "inc", lambda value=1.0, tags=None: counted.append(tags))
    asleep = context(current_num_replicas=0, target_num_replicas=0, total_queued_requests=1.0)
    scaler(asleep)
    scaler(context())
    assert counted == [{"model": "qwen3", "reason": "wake"}]


def test_every_signal_is_a_statistic_that_replicas_report() -> None:
    assert {one.name for one in fields(ReplicaSignals)} <= {
        one.name for one in fields(ReplicaStats)
    }
