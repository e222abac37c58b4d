"""Prompts go where their beginnings are cached, unless waiting there costs more than computing them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.replica_routing import ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.replicas.choice import Choice, RoutedRequest
from serving.replicas.least_loaded import LeastLoaded
from serving.replicas.prefix import Prefix
from serving.replicas.prompt_prefix import prompt_prefix

unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
SYSTEM = "You are an assistant with many rules. " * 200
FOUR = [Replica(f"replica-{number}", "http://x", "t") for number in range(4)]


def request(*texts: str, system: str = "", salt: bytes = b"s") -> RoutedRequest:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": ("user", "assistant")[index % 2], "content": text}
        for index, text in enumerate(texts)
    ]
    prompt = prompt_prefix("/v1/chat/completions", {"messages": messages}, salt)
    return RoutedRequest(prompt, body_bytes=prompt.total_bytes)


def make(gateways: int = 1, seed: int = 1, **config: float) -> Prefix:
    return Prefix(ReplicaRoutingConfig.model_validate(config), random.Random(seed).random, gateways)


def send(
    policy: Prefix,
    asked: RoutedRequest,
    in_flight: dict[str, int] | None = None,
    replicas: list[Replica] = FOUR,
) -> Choice:
    """A request whose first token has come."""
    choice = policy.choose(asked, replicas, in_flight or {})
    policy.began(choice)
    return choice


def test_a_conversation_stays_with_its_replica() -> None:
    policy = make()
    texts = ["tell me a story " * 60]
    first = send(policy, request(*texts))
    assert (first.reason, first.expected_bytes) == ("load", 0)
    for turn in range(5):
        texts += ["once upon a time " * 30, f"and then? {turn}"]
        asked = request(*texts)
        choice = send(policy, asked)
        assert choice.replica is first.replica
        assert choice.reason == "prefix"
        assert 0.5 < choice.expected_bytes / asked.prompt.total_bytes < 1
        assert choice.computed_bytes == asked.prompt.total_bytes - choice.expected_bytes


def test_prompts_with_the_same_system_prompt_share_a_replica_that_has_time() -> None:
    policy = make()
    chosen = {send(policy, request(f"{n}", system=SYSTEM)).replica.id for n in range(10)}
    assert len(chosen) == 1


def test_another_tenants_equal_prompt_is_not_thought_to_be_cached() -> None:
    policy = make()
    send(policy, request("a", system=SYSTEM, salt=b"one"))
    other = send(policy, request("a", system=SYSTEM, salt=b"two"))
    assert (other.reason, other.expected_bytes) == ("load", 0)


def test_a_hot_prefix_spills_over_and_its_new_holder_is_used_from_then_on() -> None:
    policy = make()
    first = send(policy, request("0", system=SYSTEM))
    # A hundred at once: nobody has answered yet.
    choices = [policy.choose(request(f"{n}", system=SYSTEM), FOUR, {}) for n in range(100)]
    assert choices[0].replica is first.replica
    spilt = next(choice for choice in choices if choice.reason == "spill")
    assert spilt.replica is not first.replica
    assert len({choice.replica.id for choice in choices}) == 4
    assert sum(choice.reason == "spill" for choice in choices) == 3
    for choice in choices:
        policy.began(choice)
    # Without the first one the others are holders.
    rest = [one for one in FOUR if one is not first.replica]
    assert send(policy, request("again", system=SYSTEM), replicas=rest).reason == "prefix"


def test_a_holder_with_far_more_requests_than_others_is_left() -> None:
    policy = make(spill_ratio=1.5, spill_requests=4)
    home = send(policy, request("0", system=SYSTEM)).replica
    assert send(policy, request("1", system=SYSTEM), {home.id: 6}).replica is home
    policy = make(spill_ratio=1.5, spill_requests=4)
    home = send(policy, request("0", system=SYSTEM)).replica
    left = send(policy, request("1", system=SYSTEM), {home.id: 9})
    assert left.replica is not home
    assert left.reason == "spill"


@unhurried
@given(st.integers(2, 8), st.integers(1, 400), st.integers(0, 9))
def test_no_replica_queues_much_more_than_another(count: int, burst: int, seed: int) -> None:
    policy = make(seed=seed)
    replicas = [Replica(f"replica-{number}", "http://x", "t") for number in range(count)]
    in_flight: Counter[str] = Counter()
    for number in range(burst):
        choice = policy.choose(request(f"{number}", system=SYSTEM), replicas, in_flight)
        in_flight[choice.replica.id] += 1
    assert max(in_flight.values()) <= 1.5 * (burst + 1) / count + 4 + 1


def test_a_replica_that_is_not_offered_is_not_waited_for() -> None:
    policy = make()
    home = send(policy, request("a" * 5000)).replica
    rest = [one for one in FOUR if one is not home]
    choice = send(policy, request("a" * 5000), replicas=rest)
    assert choice.replica is not home
    assert choice.expected_bytes == 0


def test_prompts_that_nobody_knows_go_as_least_loaded_would_send_them() -> None:
    policy = make()
    other = LeastLoaded(random.Random(1).random)
    in_flight: Counter[str] = Counter()
    for number in range(60):
        asked = request(f"{number} " * 300)
        mine = policy.choose(asked, FOUR, in_flight)
        theirs = other.choose(asked, FOUR, in_flight)
        assert (mine.replica, mine.reason) == (theirs.replica, "load")
        in_flight[mine.replica.id] += 1
        if number % 3:
            policy.began(mine)
            other.began(theirs)


def test_requests_whose_prompt_was_not_hashed_are_spread_by_load() -> None:
    policy = make()
    idle = FOUR[2]
    in_flight = {one.id: 5 for one in FOUR if one is not idle}
    assert send(policy, RoutedRequest(body_bytes=100), in_flight).replica is idle
    assert len(policy.index) == 0


def test_a_prompt_that_was_gone_takes_what_is_older_out_of_the_index() -> None:
    policy, one = make(), FOUR[:1]
    old, middle, new = (request(f"{n} " * 2000) for n in range(3))
    for asked in (old, middle, new):
        send(policy, asked, replicas=one)
    choice = send(policy, middle, replicas=one)
    policy.served(middle, choice, cached_tokens=0, prompt_tokens=1000)
    assert policy.index.known(old.prompt, one[0].id)[0] == 0
    # It was computed anew, and what was used since is younger.
    assert policy.index.known(middle.prompt, one[0].id)[0] == middle.prompt.total_bytes
    assert policy.index.known(new.prompt, one[0].id)[0] == new.prompt.total_bytes


@pytest.mark.parametrize(("cached", "total"), [(None, None), (None, 1000), (0, None), (990, 1000)])
def test_without_bad_news_nothing_is_forgotten(cached: int | None, total: int | None) -> None:
    policy, one = make(), FOUR[:1]
    old, new = request("old " * 1000), request("new " * 1000)
    for asked in (old, new, new):
        choice = send(policy, asked, replicas=one)
        policy.served(asked, choice, cached, total)
    assert policy.index.known(old.prompt, one[0].id)[0] == old.prompt.total_bytes


def test_an_engine_that_never_has_what_is_expected_is_trusted_less_and_less() -> None:
    policy = make()
    asked = request("0", system=SYSTEM)
    home = send(policy, asked).replica
    for number in range(40):
        asked = request(f"{number}", system=SYSTEM)
        choice = send(policy, asked, replicas=[home])
        policy.served(asked, choice, cached_tokens=0, prompt_tokens=2000)
    # So a little more to do elsewhere counts for more than what it is said to have.
    assert send(policy, request("x", system=SYSTEM), {home.id: 1}).replica is not home
    for number in range(60):
        asked = request(f"{number}", system=SYSTEM[1:])
        choice = send(policy, asked, replicas=[home])
        policy.served(asked, choice, cached_tokens=1990, prompt_tokens=2000)
    assert send(policy, request("y", system=SYSTEM[1:]), {home.id: 1}).replica is home


def test_replicas_that_are_gone_are_forgotten() -> None:
    policy = make()
    home = send(policy, request("a", system=SYSTEM)).replica
    policy.forget({one.id for one in FOUR if one is not home})
    assert len(policy.index) == 0
    assert send(policy, request("b", system=SYSTEM)).reason == "load"


@unhurried
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60))
def test_the_index_stays_within_its_bound(prompts: list[tuple[int, int]]) -> None:
    policy = make(max_entries=1000)
    for number, length in prompts:
        send(policy, request(*([f"{number} " * 500] * (2 * length + 1)), system=SYSTEM))
        assert len(policy.index) <= 1000


# ---- several gateways --------------------------------------------------------------------------------


def test_gateways_that_know_nothing_of_each_other_agree_on_a_conversations_home() -> None:
    texts = ["hello " * 50]
    homes = {send(make(4, seed), request(*texts)).replica.id for seed in range(8)}
    assert len(homes) == 1
    # Nobody has computed a first turn before.
    first = request(*texts)
    assert send(make(4), first).computed_bytes == first.prompt.total_bytes
    later = request(*texts, "hi there " * 100, "and now?")
    choice = send(make(4, 9), later)
    assert {choice.replica.id} == homes
    assert choice.reason == "session"
    assert choice.computed_bytes < later.prompt.total_bytes / 2


def test_gateways_agree_on_the_home_of_a_system_prompt() -> None:
    chosen = Counter(
        send(make(4, seed), request(f"question {seed}", system=SYSTEM)).replica.id
        for seed in range(20)
    )
    assert len(chosen) == 1


def test_homes_are_spread_over_all_replicas() -> None:
    policy = make(4)
    chosen = Counter(send(policy, request(f"{n} " * 100)).replica.id for n in range(200))
    assert len(chosen) == 4
    assert max(chosen.values()) < 100


def test_a_home_with_too_much_to_do_is_left() -> None:
    asked = request("hello " * 50)
    home = send(make(4), asked).replica
    choice = send(make(4), asked, {home.id: 30})
    assert choice.replica is not home
    assert choice.reason == "load"


def test_a_gateway_that_is_alone_gives_nobody_a_home() -> None:
    chosen = Counter(send(make(1, seed), request("hello " * 50)).replica.id for seed in range(20))
    assert len(chosen) == 4
