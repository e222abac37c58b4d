"""Bounds, what moves them, and what to measure next."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from loadtests.plan.uncertainty import dominant
from tests.loadtests.plan.helpers import measured, plan

EXACT = {
    "eur_per_gpu_hour": {"h100": 3.0},
    "country": "DE",
    "pue": 1.2,
    "idle_share": 0.1,
    "busy_share": 0.6,
    "overhead_w": 100,
}


@given(st.floats(0.5, 20), st.floats(1, 5), st.floats(1, 3))
def test_bounds_hold_the_plan_between_them(rate: float, more: float, dearer: float) -> None:
    site = EXACT | {
        "eur_per_gpu_hour": {"h100": {"low": 2, "typical": 3, "high": 3 * dearer}},
    }
    users = {"low": 500, "typical": 1000, "high": 1000 * more}
    report = plan([measured(rate)], users=users, site=site, mean_share=0.5)
    for one in report.bounds.values():
        assert one.lower <= one.typical <= one.upper
    assert report.bounds["eur_per_month"].lower < report.bounds["eur_per_month"].upper


def test_the_widest_assumption_dominates() -> None:
    users = {"low": 1000, "typical": 2000, "high": 8000}
    wide_users = plan([measured(1)], users=users, site=EXACT, mean_share=0.5)
    assert dominant(wide_users.effects, "eur_per_month") == "users"
    site = EXACT | {"eur_per_gpu_hour": {"h100": {"low": 1, "typical": 3, "high": 20}}}
    wide_price = plan([measured(1)], site=site, mean_share=0.5)
    assert dominant(wide_price.effects, "eur_per_month") == "eur_per_gpu_hour"
    # A price moves no replica.
    assert dominant(wide_price.effects, "replicas") != "eur_per_gpu_hour"


def test_what_is_known_exactly_is_no_assumption() -> None:
    report = plan([measured(1)], site=EXACT, mean_share=0.5)
    assert {one.assumption for one in report.effects} <= {"capacity", "e2e_s"}


def test_an_open_number_names_the_sweep_that_settles_it() -> None:
    report = plan([measured(2)], site=EXACT)
    one = report.unsettled[0]
    assert one.fewest < one.most
    assert one.fewest <= one.replicas <= one.most
    assert (
        f"--replicas {one.replicas} --from {0.9 * one.rate_per_s:.3g} --to "
        f"{1.1 * one.rate_per_s:.3g} --precision 0.01 --duration 188`"
    ) in one.sweep


def test_measuring_what_is_asked_for_settles_it() -> None:
    # 10 requests/s come; 4 replicas hold 9, 5 hold 12.
    sweeps = [measured(2.2), measured(9.0, replicas=4), measured(12.0, replicas=5)]
    report = plan(sweeps, site=EXACT)
    assert report.now.models[0].replicas.needed == 5
    assert not report.unsettled


def test_a_sweep_that_never_failed_leaves_the_lower_end_open() -> None:
    report = plan([measured(2, rate_fails_per_s=None)], site=EXACT)
    assert report.unsettled[0].fewest == 1
    assert math.isfinite(report.bounds["eur_per_month"].lower)
