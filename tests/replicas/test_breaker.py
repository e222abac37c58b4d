"""Circuit breakers: when they open, how long, who may try, and that something is always tried."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.admission import BreakerConfig
from serving.config.base import validated
from serving.discovery.directory import Replica
from serving.errors import ConfigError
from serving.replicas.breaker import BUCKETS, Breaker, Breakers, weight

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)

KEYS: dict[str, Any] = {
    "consecutive_failures": 3,
    "failure_share": 0.5,
    "min_requests": 10,
    "window_s": 10.0,
    "open_s": 1.0,
    "max_open_s": 8.0,
    "jitter": 0.0,
    "probe_timeout_s": 5.0,
}


def breaker(draw: float = 0.0, **keys: Any) -> Breaker:
    return Breaker(BreakerConfig(**KEYS | keys), lambda: draw)


def send(one: Breaker, ok: bool, now: float = 0.0) -> None:
    """A request that is over at once."""
    one.record(ok, now, one.begin(now))


def opened(now: float = 0.0, **keys: Any) -> Breaker:
    one = breaker(**keys)
    for _ in range(3):
        send(one, False, now)
    assert one.snapshot(now).state == "open"
    return one


def test_a_stream_that_breaks_counts_when_it_breaks() -> None:
    one = breaker()
    for _ in range(3):
        one.broke(0.0)
    assert not one.allows(0.5)


def test_an_old_stream_that_breaks_does_not_disturb_a_probe() -> None:
    one = opened()
    one.broke(1.5)
    assert one.snapshot(1.5).state == "open"
    assert one.allows(1.5)
    attempt = one.begin(1.5)
    one.broke(1.6)
    assert one.snapshot(1.6).state == "half_open"
    one.record(True, 1.7, attempt)
    assert one.snapshot(1.7).state == "closed"


# ---- whose fault it is --------------------------------------------------------------------------------


def test_doubts_of_one_tenant_open_nothing_however_many() -> None:
    one = breaker()
    for _ in range(1000):
        one.doubt("a", 0.0)
    assert one.allows(0.0)
    # An accident of another tenant does not make them count in full.
    one.doubt("b", 0.0)
    assert one.allows(0.0)


def test_doubts_of_two_tenants_open_it() -> None:
    one = breaker()
    for tenant in ("a", "b", "a"):
        assert one.allows(0.0)
        one.doubt(tenant, 0.0)
    one.doubt("b", 0.0)
    assert not one.allows(0.0)


def test_a_large_share_of_doubts_opens_it_too() -> None:
    one = breaker()
    for tenant in ("a", "b", "a", "b"):
        one.doubt(tenant, 0.0)
        send(one, True)
    assert one.allows(0.0)
    send(one, True)
    one.doubt("c", 0.0)
    assert not one.allows(0.0)


def test_a_success_takes_doubts_away() -> None:
    one = breaker(min_requests=100)
    for _ in range(10):
        one.doubt("a", 0.0)
        one.doubt("b", 0.0)
        send(one, True)
    assert one.allows(0.0)


def test_a_doubt_does_not_decide_a_probe() -> None:
    one = opened()
    attempt = one.begin(1.5)
    for tenant in "ababab":
        one.doubt(tenant, 1.6)
    assert one.snapshot(1.6).state == "half_open"
    one.record(True, 1.7, attempt)
    assert one.allows(1.7)


MOVES = st.sampled_from(["doubt", "ok", "cancelled"])


@given(st.lists(st.tuples(MOVES, st.floats(0.0, 3.0)), max_size=300))
@unhurried
def test_no_tenant_alone_opens_a_breaker(moves: list[tuple[str, float]]) -> None:
    one, now = breaker(consecutive_failures=1, min_requests=1), 0.0
    for move, passed in moves:
        now += passed
        if move == "doubt":
            one.doubt("a", now)
        elif move == "ok":
            send(one, True, now)
        else:
            one.abandon(now, one.begin(now))
        assert one.snapshot(now).state == "closed"


@given(st.lists(st.sampled_from("abcd"), max_size=60))
@unhurried
def test_doubts_never_weigh_more_than_there_are_nor_more_than_twice_the_others(
    tenants: list[str],
) -> None:
    doubts = Counter(tenants)
    total = doubts.total()
    assert 0 <= weight(doubts) <= total
    for name in doubts:
        assert weight(doubts) <= 2 * (total - doubts[name])


# ---- opening -----------------------------------------------------------------------------------------


def test_failures_in_a_row_open_it() -> None:
    one = breaker()
    send(one, False)
    send(one, False)
    assert one.allows(0.0)
    send(one, False)
    assert not one.allows(0.0)


def test_a_success_between_them_starts_the_count_again() -> None:
    one = breaker()
    for ok in (False, False, True, False, False):
        send(one, ok)
    assert one.snapshot(0.0).consecutive_failures == 2
    assert one.allows(0.0)


def test_a_large_share_of_failures_opens_it_once_there_were_enough_requests() -> None:
    one = breaker()
    for _ in range(4):
        send(one, False)
        send(one, True)
    assert one.allows(0.0)
    send(one, True)
    send(one, False)
    assert not one.allows(0.0)


def test_failures_of_long_ago_do_not_count() -> None:
    one, late = breaker(), breaker()
    for ok in (True, False, True, False, True, False, True, False, True):
        send(one, ok, 0.0)
        send(late, ok, 0.0)
    # With the tenth request half of them failed; but not within ten seconds.
    send(one, False, 9.0)
    send(late, False, 11.0)
    assert not one.allows(9.0)
    assert late.allows(11.0)
    assert late.snapshot(11.0).window_requests == 1


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 3.0)), max_size=200))
@unhurried
def test_the_window_stays_small(requests: list[tuple[bool, float]]) -> None:
    one, now = breaker(), 0.0
    for ok, passed in requests:
        now += passed
        send(one, ok, now)
        seen = one.snapshot(now)
        assert 0 <= seen.window_failures <= seen.window_requests
        assert len(one._buckets) <= BUCKETS


# ---- and closing again -------------------------------------------------------------------------------


def test_it_stays_open_twice_as_long_each_time_up_to_a_limit() -> None:
    one, now = opened(), 0.0
    for open_s in (1, 2, 4, 8, 8, 8):
        assert one.snapshot(now).retry_in_s == open_s
        assert not one.allows(now + open_s - 0.01)
        now += open_s
        assert one.allows(now)
        send(one, False, now)
    assert one.snapshot(now).openings == 7


def test_a_thousand_openings_are_no_problem() -> None:
    one, now = opened(), 0.0
    for _ in range(2000):
        now += 8
        send(one, False, now)
    assert one.snapshot(now).retry_in_s == 8


def test_jitter_shortens_the_open_time() -> None:
    one = breaker(draw=0.5, jitter=0.4)
    for _ in range(3):
        send(one, False)
    assert one.snapshot(0.0).retry_in_s == pytest.approx(0.8)


def test_one_probe_at_a_time() -> None:
    one = opened()
    probe = one.begin(1.0)
    assert one.snapshot(1.0).state == "half_open"
    assert not one.allows(1.5)
    one.record(True, 2.0, probe)
    assert one.snapshot(2.0).state == "closed"
    assert one.allows(2.0)


def test_once_it_has_closed_what_was_before_is_forgotten() -> None:
    one = breaker()
    for _ in range(5):
        send(one, True)
        send(one, False)
    assert one.snapshot(0.0).state == "open"
    send(one, True, 1.0)
    send(one, False, 1.5)
    assert one.snapshot(1.5).window_requests == 1
    assert one.allows(1.5)


def test_a_failed_probe_opens_it_again() -> None:
    one = opened()
    probe = one.begin(1.0)
    one.record(False, 1.5, probe)
    assert one.snapshot(1.5).state == "open"
    assert one.snapshot(1.5).retry_in_s == 2.0


def test_a_probe_that_says_nothing_lets_another_try() -> None:
    one = opened()
    one.abandon(1.2, one.begin(1.0))
    assert one.allows(1.2)


def test_a_probe_that_does_not_come_back_lets_another_try_and_still_counts() -> None:
    one = opened()
    slow = one.begin(1.0)
    assert not one.allows(5.9)
    assert one.allows(6.0)
    one.begin(6.0)
    assert not one.allows(7.0)
    one.record(True, 7.0, slow)
    assert one.snapshot(7.0).state == "closed"


def test_answers_to_requests_from_before_it_opened_change_nothing() -> None:
    one = breaker()
    before = [one.begin(0.0) for _ in range(10)]
    for attempt in before[:3]:
        one.record(False, 0.0, attempt)
    for attempt in before[3:6]:
        one.record(True, 0.5, attempt)
    assert one.snapshot(0.5).state == "open"
    probe = one.begin(1.0)
    one.record(False, 1.1, before[6])
    one.record(True, 1.1, before[7])
    one.abandon(1.1, before[8])
    assert one.snapshot(1.1).state == "half_open"
    one.record(True, 1.2, probe)
    one.record(False, 1.3, before[9])
    assert one.snapshot(1.3).consecutive_failures == 0


def test_a_request_let_through_for_want_of_better_closes_it_if_it_succeeds() -> None:
    one = opened()
    send(one, False, 0.2)
    assert one.snapshot(0.2).retry_in_s == pytest.approx(0.8)
    send(one, True, 0.4)
    assert one.snapshot(0.4).state == "closed"


def test_after_a_quiet_window_it_begins_with_the_short_time_again() -> None:
    one = opened()
    send(one, False, 1.0)
    send(one, True, 3.0)
    for _ in range(3):
        send(one, False, 4.0)
    assert one.snapshot(4.0).retry_in_s == 4.0
    send(one, True, 8.0)
    for _ in range(3):
        send(one, False, 18.5)
    assert one.snapshot(18.5).retry_in_s == 1.0


# ---- several replicas --------------------------------------------------------------------------------

REPLICAS = tuple(Replica(name, f"http://{name}", "token") for name in "abc")


def breakers() -> Breakers:
    return Breakers(BreakerConfig(**KEYS), lambda: 0.0)


def fail(some: Breakers, name: str, now: float, times: int = 3) -> None:
    for _ in range(times):
        send(some.replica(name), False, now)


def allowed(some: Breakers, now: float) -> str:
    return "".join(replica.id for replica in some.choose_allowed(REPLICAS, now))


def test_replicas_that_nothing_is_known_of_are_allowed() -> None:
    assert allowed(breakers(), 0.0) == "abc"


def test_a_replica_that_fails_is_left_out_until_its_time_has_passed() -> None:
    some = breakers()
    fail(some, "b", 0.0)
    assert allowed(some, 0.5) == "ac"
    assert allowed(some, 1.0) == "abc"
    some.replica("b").begin(1.0)
    assert allowed(some, 1.0) == "ac"


def test_when_all_fail_nobody_is_asked_before_a_probe_is_due() -> None:
    some = breakers()
    fail(some, "a", 0.0)
    fail(some, "b", 0.1)
    fail(some, "c", 0.2)
    assert allowed(some, 0.5) == ""
    assert allowed(some, 1.0) == "a"
    # It fails again and has to wait longest: now another one is due first.
    fail(some, "a", 1.0, times=1)
    assert allowed(some, 1.05) == ""
    assert allowed(some, 1.15) == "b"


def test_without_replicas_nobody_is_allowed() -> None:
    assert list(breakers().choose_allowed((), 0.0)) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0.0, 2.0)), max_size=80))
@unhurried
def test_something_can_always_be_tried_soon(requests: list[tuple[str, bool, float]]) -> None:
    some, now = breakers(), 0.0
    for name, ok, passed in requests:
        now += passed
        send(some.replica(name), ok, now)
        assert all(some.replica(one.id).allows(now) for one in some.choose_allowed(REPLICAS, now))
        assert some.choose_allowed(REPLICAS, now + KEYS["max_open_s"])


def test_replicas_that_are_gone_are_forgotten() -> None:
    some = breakers()
    fail(some, "a", 0.0)
    send(some.model("m"), False)
    some.keep({"b"}, {"m"})
    assert (set(some.replicas), set(some.models)) == (set(), {"m"})
    assert allowed(some, 0.0) == "abc"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"failure_share": 0}, "breaker: failure_share: "),
        ({"open_s": 60}, "open_s (60) is larger than max_open_s"),
        ({"opens": 1}, "breaker: opens: unknown key"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated(BreakerConfig, keys, "breaker")
    assert complaint in raised.value.message
