"""Who has the least to do, and whom chance offers."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.discovery.directory import Replica
from serving.replica_facts import ReplicaStats
from serving.replicas.choice import RoutedRequest
from serving.replicas.least_loaded import LeastLoaded, draw

REQUEST = RoutedRequest(body_bytes=4000)


def replica(name: str, **stats: float) -> Replica:
    return Replica(name, f"http://{name}", "t", ReplicaStats.parse(stats))


def chosen(replicas: list[Replica], in_flight: dict[str, int], gateways: int = 1) -> str:
    policy = LeastLoaded(random.Random(1).random, gateways)
    return policy.choose(REQUEST, replicas, in_flight).replica.id


@pytest.mark.parametrize("gateways", [1, 4])
def test_of_two_the_one_with_less_to_do_is_chosen(gateways: int) -> None:
    pair = [replica("a"), replica("b")]
    assert chosen(pair, {"a": 3}, gateways) == "b"
    assert chosen(pair, {"b": 3}, gateways) == "a"


def test_the_engines_report_shows_what_other_gateways_sent() -> None:
    assert chosen([replica("a", running=3.0, waiting=4.0), replica("b")], {"b": 2}) == "b"


def test_the_own_count_shows_what_the_engine_has_not_reported() -> None:
    assert chosen([replica("a"), replica("b", running=1.0)], {"a": 5}) == "b"


def test_waiting_requests_weigh_more_than_running_ones() -> None:
    assert chosen([replica("a", running=6.0), replica("b", waiting=6.0)], {}) == "a"


def test_a_full_kv_cache_weighs() -> None:
    full = replica("a", running=9.0, kv_cache_use=1.0)
    empty = replica("b", running=9.0, kv_cache_use=0.0)
    assert chosen([full, empty], {}) == "b"


@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1
    ),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 20)),
)
def test_alone_no_other_replica_has_less_to_do(
    reports: dict[str, tuple[int, int]], in_flight: dict[str, int]
) -> None:
    replicas = [
        replica(name, running=running, waiting=waiting)
        for name, (running, waiting) in reports.items()
    ]
    policy = LeastLoaded(random.Random(1).random)
    policy.load.look(replicas, in_flight)
    least = min(policy.load.bytes(known, in_flight) for known in replicas)
    picked = policy.pick(replicas, in_flight)
    assert picked in replicas
    assert policy.load.bytes(picked, in_flight) == least


def test_filling_replicas_one_by_one_keeps_them_even() -> None:
    policy = LeastLoaded(random.Random(1).random)
    replicas = [replica(name) for name in "abc"]
    in_flight = dict.fromkeys("abc", 0)
    for _ in range(30):
        in_flight[policy.choose(REQUEST, replicas, in_flight).replica.id] += 1
    assert set(in_flight.values()) == {10}


@pytest.mark.parametrize("stats", [{}, {"kv_cache_use": 0.9}])
def test_a_replica_that_has_reported_nothing_counts_as_idle(stats: dict[str, float]) -> None:
    policy = LeastLoaded(random.Random(1).random)
    silent = replica("a", **stats)
    policy.load.look([silent], {})
    assert policy.load.requests(silent, {}) == 0
    assert policy.load.bytes(silent, {}) == 0


def test_what_was_sent_since_the_report_is_added_to_it() -> None:
    policy = LeastLoaded(random.Random(1).random)
    one = replica("a", running=10.0)
    policy.load.look([one], {"a": 4})
    # Six are another gateway's; of the own four one has ended and three have come since.
    assert policy.load.requests(one, {"a": 6}) == 12
    assert policy.load.requests(one, {}) == 6
    # The next report replaces that: four of seven are others'.
    one = replica("a", running=7.0)
    policy.load.look([one], {"a": 3})
    assert policy.load.requests(one, {"a": 3}) == 7


def test_own_requests_in_the_report_are_not_counted_twice() -> None:
    policy = LeastLoaded(random.Random(1).random)
    one = replica("a", running=2.0)
    policy.load.look([one], {"a": 5})
    assert policy.load.requests(one, {"a": 5}) == 5


def test_a_long_prompt_that_waits_weighs_more_than_many_answers_that_are_written() -> None:
    policy = LeastLoaded(random.Random(1).random)
    replicas = [replica("a"), replica("b")]
    policy.load.look(replicas, {})
    long = policy.choose(RoutedRequest(body_bytes=100_000), replicas, {})
    busy = long.replica.id
    other = ({"a", "b"} - {busy}).pop()
    in_flight = {busy: 1, other: 20}
    assert policy.choose(REQUEST, replicas, in_flight).replica.id == other
    # Once it is answered, it is only one request.
    policy.began(long)
    assert policy.choose(REQUEST, replicas, in_flight).replica.id == busy


def test_what_waits_from_other_gateways_counts_like_prompts_of_the_usual_length() -> None:
    policy = LeastLoaded(random.Random(1).random)
    for _ in range(200):
        policy.began(policy.choose(RoutedRequest(body_bytes=50_000), [replica("c")], {}))
    waiting = policy.choose(REQUEST, [replica("a", waiting=1.0), replica("b")], {"b": 100})
    assert waiting.replica.id == "b"


def test_a_choice_that_began_takes_its_own_length_away() -> None:
    policy = LeastLoaded(random.Random(1).random)
    one = replica("a")
    short, long = (policy.choose(RoutedRequest(body_bytes=size), [one], {}) for size in (1, 9999))
    both = policy.load.bytes(one, {})
    policy.began(long)
    assert both - policy.load.bytes(one, {}) > 9000
    policy.began(short)
    assert policy.load.bytes(one, {}) == 0


def test_every_choice_that_began_leaves_nothing_pending() -> None:
    policy = LeastLoaded(random.Random(1).random)
    replicas = [replica(name) for name in "abc"]
    choices = [policy.choose(REQUEST, replicas, {}) for _ in range(30)]
    assert any(policy.load.bytes(one, {}) > 0 for one in replicas)
    for choice in choices:
        policy.began(choice)
    assert [policy.load.bytes(one, {}) for one in replicas] == [0, 0, 0]


WHOLE = RoutedRequest(body_bytes=4000, is_streamed=False)


def test_an_answer_that_comes_whole_counts_until_the_engine_says_that_it_has_begun() -> None:
    policy = LeastLoaded(random.Random(1).random)
    choices = [policy.choose(WHOLE, [replica("a")], {}) for _ in range(3)]

    def pending(**stats: float) -> int:
        one = replica("a", **stats)
        policy.load.look([one], {})
        return round(policy.load.bytes(one, {}) / 4256)

    assert pending(running=1.0, waiting=2.0) == 3, "this report may be older than they are"
    assert pending(running=2.0, waiting=1.0) == 1
    assert pending(running=3.0, waiting=0.0) == 0
    for choice in choices:
        policy.began(choice)
    assert pending(running=0.0) == 0


def test_a_stream_counts_until_its_first_token_whatever_the_engine_says() -> None:
    policy = LeastLoaded(random.Random(1).random)
    choice = policy.choose(REQUEST, [replica("a")], {})
    for step in range(3):
        one = replica("a", running=1.0, generated_tokens=float(step))
        policy.load.look([one], {})
    assert policy.load.bytes(one, {}) > 4000
    policy.began(choice)
    assert policy.load.bytes(one, {}) < 4000


@given(
    streamed=st.lists(st.booleans(), min_size=1, max_size=20),
    waiting=st.lists(st.integers(0, 20), max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_whatever_is_reported_nothing_is_left_when_all_have_begun(
    streamed: list[bool], waiting: list[int], order: random.Random
) -> None:
    policy = LeastLoaded(random.Random(1).random)
    open_choices, reports = [], list(waiting)
    for number, is_streamed in enumerate(streamed):
        request = RoutedRequest(body_bytes=100 * number, is_streamed=is_streamed)
        open_choices.append(policy.choose(request, [replica("a")], {}))
        if reports and order.random() < 0.5:
            count = reports.pop()
            policy.load.look([replica("a", waiting=float(count), steps=float(number))], {})
            assert policy.load.bytes(replica("a"), {}) >= 0
    order.shuffle(open_choices)
    for choice in open_choices:
        policy.began(choice)
    idle = replica("a", steps=-1.0)
    policy.load.look([idle], {})
    assert policy.load.bytes(idle, {}) == 0


def test_equal_replicas_take_turns_by_chance() -> None:
    policy = LeastLoaded(random.Random(1).random, 2)
    replicas = [replica(name) for name in "abcd"]
    counts: Counter[str] = Counter()
    for _ in range(400):
        choice = policy.choose(REQUEST, replicas, {})
        policy.began(choice)
        counts[choice.replica.id] += 1
    assert min(counts.values()) > 60


def test_with_other_gateways_two_of_many_are_compared() -> None:
    replicas = [replica(name) for name in "abcdefgh"]
    in_flight = {name: load for load, name in enumerate("abcdefgh")}
    policy = LeastLoaded(random.Random(1).random, 2)
    counts: Counter[str] = Counter()
    for _ in range(400):
        choice = policy.choose(REQUEST, replicas, in_flight)
        policy.began(choice)
        counts[choice.replica.id] += 1
    # The busiest is never the better one of two; the idlest is, whenever it is drawn: in a quarter.
    assert counts["h"] == 0
    assert 60 < counts["a"] < 140


def test_a_gateway_that_is_alone_finds_the_idlest_of_eight() -> None:
    replicas = [replica(name) for name in "abcdefgh"]
    policy = LeastLoaded(random.Random(1).random)
    in_flight = {name: 1 + load for load, name in enumerate("hgfedcba")}
    for _ in range(20):
        choice = policy.choose(REQUEST, replicas, in_flight)
        policy.began(choice)
        assert choice.replica.id == "h"


def test_replicas_that_are_gone_leave_nothing_behind() -> None:
    policy = LeastLoaded(random.Random(1).random)
    one = replica("a", running=3.0)
    policy.choose(REQUEST, [one], {})
    policy.forget({"b"})
    fresh = replica("a")
    policy.load.look([fresh], {})
    assert policy.load.bytes(fresh, {}) == 0


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_drawn_replicas_are_different_ones(size: int, count: int, seed: int) -> None:
    replicas = [replica(str(number)) for number in range(size)]
    drawn = draw(replicas, count, random.Random(seed).random)
    assert len({one.id for one in drawn}) == len(drawn) == min(size, count)
