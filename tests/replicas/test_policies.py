"""What holds for every replica policy, and how one is found by its name."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.base import validated
from serving.config.replica_routing import PolicyName, ReplicaRoutingConfig
from serving.discovery.directory import Replica
from serving.errors import ConfigError
from serving.replica_facts import ReplicaStats
from serving.replicas.choice import Reason, RoutedRequest
from serving.replicas.policies import POLICIES, replica_policy
from serving.replicas.prompt_prefix import PromptPrefix

# A busy machine is no failure.
unhurried = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])

IDS = tuple("abcdef")
STATS = st.fixed_dictionaries(
    {},
    optional={
        "running": st.integers(0, 99).map(float),
        "waiting": st.integers(0, 99).map(float),
        "kv_cache_use": st.floats(0, 1),
        "last_step_s": st.floats(0, 9),
    },
)
REPLICAS = st.dictionaries(st.sampled_from(IDS), STATS, min_size=1).map(
    lambda drawn: [
        Replica(name, f"http://{name}", "t", ReplicaStats(**stats)) for name, stats in drawn.items()
    ]
)
# Prompts that share beginnings: a path in a small tree.
PROMPTS = st.lists(st.integers(0, 1), max_size=5).map(
    lambda path: PromptPrefix(
        hashes=tuple(hash(tuple(path[: end + 1])) for end in range(len(path))),
        ends=tuple(1000 * (end + 1) for end in range(len(path))),
        total_bytes=1000 * len(path),
        head=hash(tuple(path[:1])),
        head_bytes=1000 * min(1, len(path)),
        opening=hash(tuple(path[:2])),
        follows=len(path) > 2,
    )
)
REQUESTS = st.builds(RoutedRequest, PROMPTS, st.sampled_from(["", "s", "t"]), st.integers(0, 9000))
TOKENS = st.none() | st.integers(0, 3000)
STEPS = st.lists(
    st.tuples(REQUESTS, REPLICAS, st.dictionaries(st.sampled_from(IDS), st.integers(0, 50))),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("gateways", [1, 3])
@pytest.mark.parametrize("name", list(POLICIES))
@unhurried
@given(STEPS, st.data())
def test_only_replicas_that_were_offered_are_chosen(
    name: str, gateways: int, steps: list, data: st.DataObject
) -> None:
    policy = replica_policy(ReplicaRoutingConfig(), random.Random(1).random, gateways, name)
    for request, replicas, in_flight in steps:
        choice = policy.choose(request, replicas, in_flight)
        assert any(choice.replica is one for one in replicas)
        assert choice.policy == policy.name == name
        assert choice.reason in get_args(Reason)
        assert 0 <= choice.computed_bytes <= request.prompt_bytes
        policy.began(choice)
        policy.served(request, choice, data.draw(TOKENS), data.draw(TOKENS))
        if data.draw(st.booleans()):
            policy.forget(data.draw(st.sets(st.sampled_from(IDS))))


@pytest.mark.parametrize("name", list(POLICIES))
@given(STEPS, st.integers(0, 3))
@unhurried
def test_the_same_random_numbers_give_the_same_choices(name: str, steps: list, seed: int) -> None:
    def choices() -> list[str]:
        policy = replica_policy(ReplicaRoutingConfig(), random.Random(seed).random, name=name)
        return [policy.choose(*step).replica.id for step in steps]

    assert choices() == choices()


@pytest.mark.parametrize("name", list(POLICIES))
def test_a_single_replica_gets_everything_however_loaded(name: str) -> None:
    policy = replica_policy(ReplicaRoutingConfig(), random.Random(1).random, name=name)
    full = ReplicaStats(running=900.0, waiting=900.0, kv_cache_use=1.0)
    only = Replica("a", "http://a", "t", full)
    for _ in range(3):
        choice = policy.choose(RoutedRequest(session="s"), [only], {"a": 900})
        assert choice.replica is only


def test_the_configuration_names_the_policy() -> None:
    for name in get_args(PolicyName):
        config = ReplicaRoutingConfig(policy=name)
        assert replica_policy(config, random.Random(1).random).name == name
    assert ReplicaRoutingConfig().policy == "prefix"


def test_every_policy_of_the_configuration_exists_and_no_other() -> None:
    assert set(get_args(PolicyName)) == set(POLICIES)


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError) as refused:
        replica_policy(ReplicaRoutingConfig(), random.Random(1).random, name="round-robin")
    assert refused.value.param == "policy"
    for name in POLICIES:
        assert name in refused.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("policy", "round-robin"),
        ("block_bytes", 63),
        ("max_prompt_bytes", 1023),
        ("max_entries", 999),
        ("spill_ratio", 0.9),
        ("spill_requests", -1),
        ("epsilon", 0),
        ("prefixes", 1),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        validated(ReplicaRoutingConfig, {key: value}, "replica_routing")
    assert refused.value.param == key
    assert key in refused.value.message


def test_the_page_for_operators_has_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs/replica-routing.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w.-]+)` \|", page, re.MULTILINE))
    assert rows == {name: str(value) for name, value in ReplicaRoutingConfig().model_dump().items()}
    for word in (*POLICIES, *get_args(Reason)):
        assert f"`{word}`" in page
