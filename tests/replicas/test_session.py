"""Sessions stay where they are, unless their replica has too much to do."""

from __future__ import annotations

import math
import random
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.replica_routing import ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.replicas.choice import Choice, RoutedRequest
from serving.replicas.session import Session

unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
SESSIONS = [f"session {number}" for number in range(400)]


def replicas(count: int) -> list[Replica]:
    return [Replica(f"replica-{number}", "http://x", "t") for number in range(count)]


def policy(epsilon: float = 0.25, seed: int = 1) -> Session:
    return Session(ReplicaRoutingConfig(epsilon=epsilon), random.Random(seed).random)


def choose(of: Session, session: str, among: list[Replica], **in_flight: int) -> Choice:
    counts = {name.replace("_", "-"): count for name, count in in_flight.items()}
    choice = of.choose(RoutedRequest(session=session), among, counts)
    of.began(choice)
    return choice


def places(of: Session, among: list[Replica]) -> dict[str, str]:
    return {session: choose(of, session, among).replica.id for session in SESSIONS}


def test_a_session_has_the_same_replica_at_every_gateway() -> None:
    four = replicas(4)
    assert places(policy(seed=1), four) == places(policy(seed=2), list(reversed(four)))


def test_sessions_are_spread_over_all_replicas() -> None:
    counts = Counter(places(policy(), replicas(4)).values())
    assert len(counts) == 4
    assert max(counts.values()) < 2 * min(counts.values())


@unhurried
@given(st.integers(2, 12))
def test_a_replica_that_comes_or_goes_moves_about_one_share_of_the_sessions(count: int) -> None:
    one = policy()
    before = places(one, replicas(count))
    after = places(one, replicas(count + 1))
    moved = [session for session in SESSIONS if before[session] != after[session]]
    assert {after[session] for session in moved} == {f"replica-{count}"}
    assert len(moved) < 2.2 * len(SESSIONS) / (count + 1)
    one.forget({replica.id for replica in replicas(count)})
    assert places(one, replicas(count)) == before


def test_a_replica_over_its_bound_is_skipped_and_the_session_comes_back() -> None:
    one, four = policy(), replicas(4)
    home = choose(one, "s", four)
    assert home.reason == "session"
    busy = {home.replica.id.replace("-", "_"): 20}
    spilt = choose(one, "s", four, **busy)
    assert spilt.replica.id != home.replica.id
    assert spilt.reason == "spill"
    assert choose(one, "s", four).replica.id == home.replica.id


def test_a_session_that_is_displaced_always_goes_to_the_same_other_replica() -> None:
    four = replicas(4)
    home = choose(policy(), "s", four).replica.id
    others = {
        choose(policy(seed=seed), "s", four, **{home.replace("-", "_"): 20}).replica.id
        for seed in range(5)
    }
    assert len(others) == 1


@unhurried
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=9),
    st.floats(0.05, 2),
    st.sampled_from(SESSIONS),
)
def test_nobody_gets_more_than_the_bound(loads: list[int], epsilon: float, session: str) -> None:
    some = replicas(len(loads))
    in_flight = {replica.id: load for replica, load in zip(some, loads, strict=True)}
    choice = policy(epsilon).choose(RoutedRequest(session=session), some, in_flight)
    mean = (sum(loads) + 1) / len(loads)
    assert in_flight[choice.replica.id] + 1 <= math.ceil((1 + epsilon) * mean)


def test_a_replica_that_is_not_offered_is_passed_over_without_moving_others() -> None:
    one, four = policy(), replicas(4)
    before = places(one, four)
    after = places(one, four[:3])
    for session in SESSIONS:
        if before[session] != "replica-3":
            assert after[session] == before[session]
        else:
            assert after[session] != "replica-3"


def test_requests_without_a_session_go_where_there_is_little_to_do() -> None:
    choice = choose(policy(), "", replicas(2), replica_0=5)
    assert (choice.replica.id, choice.reason, choice.policy) == ("replica-1", "load", "session")
