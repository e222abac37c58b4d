"""The retry budget: a share of the requests, a floor, and nothing that piles up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.admission import RetryConfig
from serving.config.base import validated
from serving.errors import ConfigError
from serving.replicas.retry_budget import BUCKETS, RetryBudget

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)


def budget(**keys: Any) -> RetryBudget:
    return RetryBudget(RetryConfig(**{"share": 0.2, "min_per_s": 0.0, "window_s": 10.0} | keys))


def retries(some: RetryBudget, now: float = 0.0) -> int:
    """How many retries there are left; takes them."""
    taken = 0
    while taken < 10_000 and some.try_retry(now):
        taken += 1
    return taken


def test_a_share_of_the_requests_may_be_sent_again() -> None:
    some = budget()
    for _ in range(50):
        some.request(0.0)
    assert retries(some) == 10


def test_a_share_that_is_no_binary_fraction_is_not_rounded_down() -> None:
    # 0.29 * 100 is a little less than 29.
    some = budget(share=0.29)
    for _ in range(100):
        some.request(0.0)
    assert some.snapshot(0.0)["left"] == 29
    assert retries(some) == 29


def test_a_small_site_may_retry_too() -> None:
    some = budget(min_per_s=0.5)
    assert retries(some) == 5
    # The floor comes back with time: five in any ten seconds.
    assert retries(some, 5.0) == 0
    assert retries(some, 10.0) == 5


def test_without_floor_and_requests_there_is_no_retry() -> None:
    assert not budget().try_retry(0.0)


def test_requests_of_long_ago_do_not_count() -> None:
    some = budget()
    for _ in range(50):
        some.request(0.0)
    assert retries(some, 10.0) == 0


def test_the_window_slides() -> None:
    some = budget()
    for second in range(20):
        for _ in range(5):
            some.request(float(second))
    # Fifty requests in the last ten seconds.
    assert some.snapshot(19.5) == {"requests": 50, "retries": 0, "left": 10, "refused": 0}
    assert retries(some, 19.5) == 10
    assert some.snapshot(19.5) == {"requests": 50, "retries": 10, "left": 0, "refused": 1}


@given(
    ops=st.lists(st.tuples(st.booleans(), st.floats(0.0, 2.0)), max_size=200),
    share=st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    floor=st.sampled_from([0.0, 0.5, 3.0]),
)
@unhurried
def test_in_any_window_there_are_no_more_retries_than_it_allows(
    ops: list[tuple[bool, float]], share: float, floor: float
) -> None:
    some, now = budget(share=share, min_per_s=floor), 0.0
    requests: list[float] = []
    granted: list[float] = []
    for is_retry, passed in ops:
        now += passed
        if not is_retry:
            some.request(now)
            requests.append(now)
        elif some.try_retry(now):
            granted.append(now)
            # When it is granted: later, requests that paid for it leave the window before it does.
            window = now - 10.0
            recent = sum(at > window for at in requests)
            # The oldest tenth of the window may be gone already, which only makes it stricter.
            retried = sum(at > window + 10.0 / BUCKETS for at in granted)
            assert retried <= share * recent + floor * 10 + 1e-3
        assert len(some._buckets) <= BUCKETS


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"share": 1.5}, "retries: share: "),
        ({"max_attempts": 0}, "retries: max_attempts: "),
        ({"hedge": True}, "retries: hedge: unknown key"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated(RetryConfig, keys, "retries")
    assert complaint in raised.value.message


def test_nothing_is_hedged_by_default() -> None:
    assert RetryConfig().hedge_after_s is None


# ---- between tenants -----------------------------------------------------------------------------------


def test_a_tenant_uses_no_more_than_its_share_of_the_requests() -> None:
    one = RetryBudget(RetryConfig(share=0.1, min_per_s=0, window_s=10))
    for _ in range(50):
        one.request(0.0, "a")
        one.request(0.0, "b")
    assert [one.try_retry(0.0, "a") for _ in range(10)] == [True] * 5 + [False] * 5
    assert [one.try_retry(0.0, "b") for _ in range(10)] == [True] * 5 + [False] * 5


def test_a_small_tenant_has_one_retry_whatever_the_others_have_used() -> None:
    one = RetryBudget(RetryConfig(share=0.1, min_per_s=0, window_s=10))
    for _ in range(99):
        one.request(0.0, "flood")
    one.request(0.0, "small")
    while one.try_retry(0.0, "flood"):
        pass
    assert one.try_retry(0.0, "small")
    assert not one.try_retry(0.0, "small")


def test_a_tenant_alone_has_the_whole_budget() -> None:
    one = RetryBudget(RetryConfig(share=0.1, min_per_s=0.5, window_s=10))
    for _ in range(20):
        one.request(0.0, "a")
    assert sum(one.try_retry(0.0, "a") for _ in range(20)) == 7


def test_tenants_are_forgotten_with_the_window() -> None:
    one = RetryBudget(RetryConfig(share=0.1, min_per_s=1, window_s=10))
    for number in range(100):
        one.request(0.0, f"t{number}")
    one.try_retry(0.0, "t1")
    assert one.snapshot(20.0)["requests"] == 0
    assert not one._tenants
