"""How many requests come."""

from __future__ import annotations

import pytest

from loadtests.plan.demand import peak_rates
from tests.loadtests.plan.helpers import config, traffic

E2E = {"chat": 5.0, "sum": 20.0}


def test_a_user_waits_for_the_answer_and_thinks() -> None:
    # 200 users at work, one request in 20 s each.
    assert peak_rates(config(), E2E, {}) == {"chat": pytest.approx(10.0)}


def test_classes_share_the_users() -> None:
    both = [traffic(share=3), traffic(name="sum", share=1, think_s=40)]
    rates = peak_rates(config(traffic=both), E2E, {})
    # A cycle takes 0.75 x 20 + 0.25 x 60 = 30 s on average.
    assert rates == {"chat": pytest.approx(5.0), "sum": pytest.approx(200 / 30 / 4)}


def test_peak_and_growth_multiply() -> None:
    rates = peak_rates(config(peak_factor=2, growth={"factor": 3}), E2E, {})
    assert rates["chat"] == pytest.approx(60.0)


def test_a_known_rate_needs_no_users() -> None:
    plan = config(users=None, active_share=None, rate_per_s=7, traffic=[traffic(think_s=None)])
    assert peak_rates(plan, {}, {}) == {"chat": 7.0}


def test_less_thinking_means_more_requests() -> None:
    plan = config(traffic=[traffic(think_s={"low": 5, "typical": 15, "high": 35})])
    found = [peak_rates(plan, E2E, {"think_s": level})["chat"] for level in ("low", "high")]
    assert found == [pytest.approx(20.0), pytest.approx(5.0)]
