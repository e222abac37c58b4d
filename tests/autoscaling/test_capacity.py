"""What a replica can carry, learned from when requests begin to wait."""

from __future__ import annotations

from typing import Any

import pytest

from serving.autoscaling.capacity import FORGET_S, UTILISATION, Capacity
from serving.autoscaling.signals import ReplicaSignals, Signals
from serving.config.autoscaling import AutoscalingConfig

CONFIG = AutoscalingConfig(target_requests=32.0, max=4)
WITH_ITL = AutoscalingConfig(target_requests=32.0, max=4, itl_objective_s=0.05)


def learned(
    seconds: int,
    config: AutoscalingConfig = CONFIG,
    capacity: Capacity | None = None,
    **load: Any,
) -> Capacity:
    capacity = capacity or Capacity()
    signals = Signals({"r": ReplicaSignals(**load)}, 1, 1)
    for _ in range(seconds):
        capacity = capacity.learn(signals, config, 1.0)
    return capacity


def test_the_target_holds_until_something_was_learned() -> None:
    assert Capacity().requests(CONFIG) == 32.0
    assert learned(60, open_requests=20.0).requests(CONFIG) == pytest.approx(32.0)


def test_a_replica_on_which_requests_wait_carries_fewer() -> None:
    capacity = learned(60, open_requests=46.0, running=16.0, waiting=30.0)
    assert capacity.requests(CONFIG) == pytest.approx(16 * UTILISATION, rel=0.01)


def test_a_moment_in_which_requests_wait_teaches_nothing() -> None:
    capacity = learned(2, open_requests=46.0, waiting=30.0)
    capacity = learned(1, capacity=capacity, open_requests=5.0)
    capacity = learned(2, capacity=capacity, open_requests=46.0, waiting=30.0)
    assert capacity.requests(CONFIG) == pytest.approx(32.0, rel=0.01)


def test_what_was_learned_is_forgotten_in_quiet_hours() -> None:
    low = learned(60, open_requests=46.0, waiting=30.0)
    later = learned(int(FORGET_S), capacity=low, open_requests=5.0)
    assert low.requests(CONFIG) < later.requests(CONFIG) < 32.0


def test_a_replica_that_carries_more_again_is_believed() -> None:
    low = learned(60, open_requests=46.0, waiting=30.0)
    again = learned(60, capacity=low, open_requests=37.0)
    assert again.requests(CONFIG) == pytest.approx(37 * UTILISATION, rel=0.01)


def test_without_an_itl_objective_the_target_is_the_most() -> None:
    assert learned(60, open_requests=200.0).requests(CONFIG) == pytest.approx(32.0)


def test_an_itl_objective_allows_more_as_long_as_it_is_met() -> None:
    load = {"open_requests": 100.0, "running": 100.0, "tokens_per_s": 100 / 0.04}
    assert learned(60, WITH_ITL, **load).requests(WITH_ITL) == pytest.approx(85.0, rel=0.01)
    assert learned(600, WITH_ITL, **(load | {"open_requests": 1e4})).requests(
        WITH_ITL
    ) == pytest.approx(4 * 32.0)


def test_tokens_that_come_too_slowly_lower_the_capacity() -> None:
    load = {"open_requests": 30.0, "running": 30.0, "tokens_per_s": 30 / 0.1}
    capacity = learned(60, WITH_ITL, **load)
    assert capacity.requests(WITH_ITL) == pytest.approx(15 * UTILISATION, rel=0.01)


def test_learning_has_bounds() -> None:
    capacity = learned(600, open_requests=500.0, waiting=499.0)
    assert capacity.requests(CONFIG) == pytest.approx(4.0)
    single = AutoscalingConfig(target_requests=0.5, max=4)
    assert learned(60, single, open_requests=9.0, waiting=8.0).requests(single) <= 0.5 + 1e-9
