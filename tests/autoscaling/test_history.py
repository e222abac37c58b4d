"""Arrivals, their trend and the time in an engine, from counters and open requests."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from serving.autoscaling.history import History
from serving.autoscaling.signals import ReplicaSignals, Signals


def seen(arrived: float | None, open_requests: float = 0.0, **more: float) -> Signals:
    return Signals({"r": ReplicaSignals(open_requests, arrived_requests=arrived, **more)}, 1, 1)


def watched(arrivals_per_s: Callable[[int], float], seconds: int, busy: float = 10.0) -> History:
    """A history of so many seconds in which requests come at that rate."""
    history, arrived = History(), 0.0
    for second in range(seconds):
        arrived += arrivals_per_s(second)
        history = history.add(seen(arrived, busy), float(second), keep_s=600)
    return history


def test_arrivals_are_a_mean_over_a_minute_while_no_queue_builds() -> None:
    history = watched(lambda second: 8.0 if second < 100 else 20.0, 106)
    steady = history.arrivals_per_s(at_once=False)
    assert steady is not None
    assert 8.0 < steady < 10.0


def test_a_step_shows_at_once_while_a_queue_builds() -> None:
    history = watched(lambda second: 8.0 if second < 100 else 80.0, 106)
    at_once = history.arrivals_per_s(at_once=True)
    assert at_once is not None
    assert 60.0 < at_once <= 80.0


def test_arrivals_are_unknown_without_counters_and_at_first() -> None:
    assert History().arrivals_per_s(at_once=True) is None
    assert watched(lambda _: 3.0, 3).arrivals_per_s(at_once=True) is None
    uncounted = History().add(seen(None, 4.0), 0.0, 60).add(seen(None, 9.0), 60.0, 60)
    assert uncounted.arrivals_per_s(at_once=True) is None


def test_a_new_replica_and_one_that_ends_invent_no_arrivals() -> None:
    def at(second: int) -> Signals:
        replicas = {"old": ReplicaSignals(2, arrived_requests=5.0 * second)}
        if 10 <= second < 20:
            replicas["new"] = ReplicaSignals(2, arrived_requests=1000.0)
        return Signals(replicas, len(replicas), len(replicas))

    history = History()
    for second in range(60):
        history = history.add(at(second), float(second), keep_s=600)
    assert history.arrivals_per_s(at_once=True) == pytest.approx(5.0)


def test_requests_that_gateways_hold_have_come_and_come_only_once() -> None:
    history = History().add(seen(0.0, gateway_queue=0.0), 0.0, 600)
    history = history.add(seen(0.0, gateway_queue=60.0), 30.0, 600)
    assert history.arrivals_per_s(at_once=False) == pytest.approx(2.0)
    history = history.add(seen(60.0, gateway_queue=0.0), 60.0, 600)
    assert history.arrivals_per_s(at_once=False) == pytest.approx(1.0)


def test_what_was_held_while_a_model_slept_is_no_sudden_load() -> None:
    history = History().add(Signals(), 0.0, 600).add(Signals(), 30.0, 600)
    history = history.add(seen(5.0, gateway_queue=500.0), 31.0, 600)
    history = history.add(seen(6.0, gateway_queue=500.0), 40.0, 600)
    rate = history.arrivals_per_s(at_once=True)
    assert rate is not None
    assert rate < 1.0


def test_a_request_is_worked_on_for_as_long_as_littles_law_says() -> None:
    assert watched(lambda _: 4.0, 100, busy=32.0).residence_s() == pytest.approx(8.0, rel=0.02)


def test_the_time_is_not_told_while_few_have_finished_or_the_work_in_hand_changes() -> None:
    assert watched(lambda _: 0.01, 100).residence_s() is None
    history = watched(lambda _: 4.0, 100, busy=32.0)
    history = history.add(seen(404.0, 300.0), 100.0, 600)
    assert history.residence_s() is None


@pytest.mark.parametrize("ahead_s", [15.0, 30.0, 60.0, 120.0])
def test_a_ramp_is_extrapolated(ahead_s: float) -> None:
    history = watched(lambda second: 10.0 + second * 0.05, 600)
    assert history.rise_per_s(ahead_s) == pytest.approx(0.05 * (ahead_s + 30.0), rel=0.05)


@pytest.mark.parametrize("age_s", range(5, 240, 10))
def test_a_step_is_never_extrapolated(age_s: int) -> None:
    history = watched(lambda second: 3.0 if second < 600 - age_s else 24.0, 600)
    assert history.rise_per_s(30.0) == 0.0


def test_noise_is_seldom_extrapolated_and_a_fall_never() -> None:
    rises = 0
    for seed in range(50):
        draw = random.Random(seed)
        rises += watched(lambda _, draw=draw: draw.uniform(5, 15), 300).rise_per_s(30.0) > 0
    assert rises <= 2
    assert watched(lambda second: 40.0 - second * 0.05, 600).rise_per_s(30.0) == 0.0


def test_old_samples_are_forgotten() -> None:
    history = History()
    for second in range(1000):
        history = history.add(seen(float(second)), float(second), keep_s=100)
    assert len(history.samples) <= 102
    assert history.arrivals_per_s(at_once=False) == pytest.approx(1.0)


def test_whether_someone_just_came_is_known_of_short_requests_too() -> None:
    history = History().add(seen(1.0), 0.0, 60)
    assert not history.just_came
    assert history.add(seen(2.0), 1.0, 60).just_came
    assert not history.add(seen(2.0), 1.0, 60).add(seen(2.0), 2.0, 60).just_came
    assert History().last_s == -math.inf
