"""From demand and capacity to replicas and nodes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ConfigError
from tests.loadtests.plan.helpers import config, measured, plan, traffic


def test_replicas_by_hand() -> None:
    # 200 users, 19.65 s a cycle: 10.2 requests/s at 4 a replica, filled to 80 %, are 3.2 replicas.
    exact = [measured(4.0), measured(8.0, replicas=2), measured(16.0, replicas=4)]
    report = plan(exact, utilisation=0.8, spares=1)
    one = report.now.models[0]
    assert (one.replicas.needed, one.replicas.total) == (4, 5)
    assert one.load == pytest.approx(one.peak_per_s / 16)


@given(st.floats(0.3, 40), st.integers(0, 3))
def test_what_is_left_after_a_failure_is_not_too_full(rate: float, spares: int) -> None:
    report = plan([measured(rate)], utilisation=0.7, spares=spares)
    one = report.now.models[0]
    capacity = report.capacities["chat"]
    left = one.replicas.total - spares
    assert one.peak_per_s <= 0.7 * capacity.rate_per_s(left, "typical") * (1 + 1e-9)
    # What is sure bounds what is only probable: never short by more than one.
    sure = math.ceil(one.peak_per_s / (0.7 * capacity.rate_per_s(1, "low")) - 1e-9)
    assert sure - 1 <= left <= sure


def test_classes_of_a_model_share_its_replicas() -> None:
    sweeps = [measured(8, inputs=1000), measured(2, inputs=4000)]
    both = [traffic(), traffic(name="long", input_tokens=4000)]
    report = plan(
        sweeps, traffic=both, utilisation=0.9, users=None, active_share=None, rate_per_s=8
    )
    one = report.now.models[0]
    needed = one.replicas.needed
    filled = sum(
        4 / report.capacities[name].rate_per_s(needed, "typical") for name in ("chat", "long")
    )
    assert one.load == pytest.approx(filled)
    assert filled <= 0.9


def test_whole_nodes_are_paid_where_they_are_bought() -> None:
    site = {"eur_per_gpu_hour": {"h100": 3.0}, "hours_per_month": 100}
    by_gpu = plan([measured(4)], site=site)
    by_node = plan([measured(4)], site=site | {"billing": "node"})
    assert by_gpu.now.bill.eur == pytest.approx(by_gpu.now.gpus * 300)
    assert by_node.now.bill.eur == pytest.approx(8 * 300)


def test_a_demand_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 100000 replicas: check users"):
        plan([measured(0.01)], users=1e9)


def test_several_models_are_planned_side_by_side() -> None:
    both = [traffic(), traffic(name="other", model="n", share=1)]
    report = plan([measured(10), measured(2, model="n")], traffic=both)
    assert [one.model for one in report.now.models] == ["m", "n"]
    assert report.now.replicas == sum(one.replicas.total for one in report.now.models)
    assert config(traffic=both).share_of(report.plan.traffic[1]) == 0.5
