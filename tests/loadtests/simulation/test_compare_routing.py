"""The simulation of replica policies, and the bars that the policies must clear in it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner, Result

from loadtests.simulation.compare_routing import app, play
from loadtests.simulation.routing.engines import BLOCK_TOKENS, CachingModel, Engine, SimRequest
from loadtests.simulation.routing.policies import CHOOSERS
from loadtests.simulation.routing.workloads import (
    WORKLOADS,
    Conversation,
    Workload,
    conversation_tokens,
)
from serving.config.replica_routing import ReplicaRoutingConfig
from serving.errors import ConfigError
from serving.replicas.choice import RoutedRequest
from serving.replicas.policies import POLICIES

SMALL = replace(WORKLOADS["pair"], conversations=4, turns=2)


def asked(name: str, prompt_tokens: int, answer_tokens: int = 0) -> SimRequest:
    blocks = [(name, index) for index in range((prompt_tokens + answer_tokens) // BLOCK_TOKENS)]
    return SimRequest(RoutedRequest(), blocks, prompt_tokens, answer_tokens, 0)


def serve(engine: Engine, request: SimRequest) -> SimRequest:
    engine.waiting.append(request)
    assert engine.start_next(0.0) is request
    engine.prefilling = None
    engine.finish(request)
    return request


# ---- the bars ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat", "chat-tight"])
def test_prefix_finds_half_as_much_again_cached_as_round_robin(name: str) -> None:
    workload = WORKLOADS[name]
    caches = 8 if name == "chat-tight" else 1
    share = workload.engine.kv_tokens * caches / conversation_tokens(workload)
    assert (workload.replicas, round(share, 2)) == (8, 0.33)
    prefix, round_robin = (play(workload, policy) for policy in ("prefix", "round robin"))
    assert prefix.cached_share >= 1.5 * round_robin.cached_share
    assert prefix.ttft_p50_s < round_robin.ttft_p50_s


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_prefix_is_nearly_as_good_as_an_oracle_on_two_replicas(seed: int) -> None:
    pair = WORKLOADS["pair"]
    assert (pair.replicas, pair.conversations, pair.turns) == (2, 8, 6)
    shares = {
        policy: play(pair, policy, seed).cached_share for policy in (*CHOOSERS, "greedy oracle")
    }
    assert shares["prefix"] >= 0.9 * max(shares["oracle"], shares["greedy oracle"])
    assert shares["prefix"] > max(shares["round robin"], shares["least-loaded"])
    several = play(replace(pair, gateways=4), "prefix", seed).cached_share
    assert several >= 0.9 * shares["oracle"]


@pytest.mark.parametrize("seed", [1, 2])
def test_prefix_costs_nothing_where_nothing_is_shared(seed: int) -> None:
    workload = replace(WORKLOADS["nothing-shared"], conversations=1200)
    prefix, least_loaded = (
        play(workload, policy, seed).ttft_p99_s for policy in ("prefix", "least-loaded")
    )
    assert prefix <= 1.03 * least_loaded


def test_prefix_is_no_worse_than_least_loaded_where_engines_cache_nothing() -> None:
    workload = replace(WORKLOADS["chat"], conversations=150)
    workload = replace(workload, engine=replace(workload.engine, kv_tokens=0))
    prefix, least_loaded = (play(workload, policy) for policy in ("prefix", "least-loaded"))
    assert prefix.cached_share == 0
    assert prefix.ttft_p99_s <= 1.1 * least_loaded.ttft_p99_s


def test_a_hot_prompt_spreads_over_all_replicas() -> None:
    workload = replace(WORKLOADS["hot-prompt"], conversations=400)
    prefix, greedy = (play(workload, policy) for policy in ("prefix", "greedy oracle"))
    assert greedy.spread > 6
    assert prefix.spread < 1.5
    assert prefix.ttft_p50_s < greedy.ttft_p50_s / 10


def test_long_system_prompts_are_shared_out_among_replicas_even_by_several_gateways() -> None:
    workload = replace(WORKLOADS["assistants"], conversations=600)
    least_loaded = play(workload, "least-loaded").cached_share
    for gateways in (1, 4):
        prefix = play(replace(workload, gateways=gateways), "prefix").cached_share
        assert prefix > 1.8 * least_loaded


# ---- the simulation itself ---------------------------------------------------------------------------


def test_an_engine_has_what_it_computed_in_whole_blocks() -> None:
    engine = Engine("a", CachingModel())
    assert serve(engine, asked("x", 100, 50)).cached_tokens == 0
    assert serve(engine, asked("x", 100, 50)).cached_tokens == 96
    # The answer is there too, but the last token of a prompt is always computed.
    assert serve(engine, asked("x", 145)).cached_tokens == 144
    assert serve(engine, asked("x", 144)).cached_tokens == 128


def test_a_full_cache_drops_what_was_used_longest_ago_from_its_end() -> None:
    engine = Engine("a", CachingModel(kv_tokens=20 * BLOCK_TOKENS))
    for name in ("x", "y", "x", "z"):
        serve(engine, asked(name, 8 * BLOCK_TOKENS + 1))
    assert engine.cached_tokens(asked("y", 8 * BLOCK_TOKENS + 1)) == 4 * BLOCK_TOKENS
    assert engine.cached_tokens(asked("x", 8 * BLOCK_TOKENS + 1)) == 8 * BLOCK_TOKENS


def test_a_first_token_takes_as_long_as_what_is_not_cached() -> None:
    engine = Engine("a", CachingModel(prefill_tokens_per_s=1000.0, step_s=0.5))
    engine.waiting.append(asked("x", 160))
    engine.start_next(10.0)
    assert engine.prefill_ends_s == pytest.approx(10.0 + 0.5 + 0.16)
    engine.prefilling = None
    engine.waiting.append(asked("x", 161))
    engine.start_next(20.0)
    assert engine.prefill_ends_s == pytest.approx(20.0 + 0.5 + 0.001)


def test_an_engine_prefills_one_prompt_at_a_time_and_has_so_many_slots() -> None:
    engine = Engine("a", CachingModel(slots=2))
    engine.waiting.extend(asked(name, 10) for name in "xyz")
    assert engine.start_next(0.0) is not None
    assert engine.start_next(0.0) is None
    engine.prefilling = None
    assert engine.start_next(0.0) is not None
    engine.prefilling = None
    assert engine.start_next(0.0) is None
    engine.report(1.0)
    assert (engine.stats.running, engine.stats.waiting) == (2, 1)


def test_a_conversation_grows_and_shares_its_system_prompt() -> None:
    workload = replace(WORKLOADS["chat"], system_prompts=1)
    one, other = (Conversation(workload, number, seed=1) for number in (0, 1))
    first, second, third = one.next(), one.next(), other.next()
    shared = workload.system_tokens // BLOCK_TOKENS
    assert list(second.blocks[: len(first.blocks)]) == list(first.blocks)
    assert list(third.blocks[:shared]) == list(first.blocks[:shared])
    assert not set(third.blocks[shared:]) & set(first.blocks[shared:])
    assert first.routed.prompt.head == third.routed.prompt.head
    assert second.prompt_tokens > first.prompt_tokens + first.answer_tokens


def test_every_policy_gets_the_same_conversations() -> None:
    def told(workload: Workload) -> list[tuple[int, int]]:
        conversation = Conversation(workload, 3, seed=7)
        turns = [conversation.next() for _ in range(2)]
        return [(turn.prompt_tokens, turn.answer_tokens) for turn in turns]

    assert told(SMALL) == told(SMALL)
    assert told(SMALL) != told(replace(SMALL, name="another"))


@pytest.mark.parametrize("policy", [*CHOOSERS, "greedy oracle"])
def test_the_same_seed_gives_the_same_score(policy: str) -> None:
    assert play(SMALL, policy, seed=3) == play(SMALL, policy, seed=3)


def test_every_policy_of_the_gateway_is_compared() -> None:
    assert set(POLICIES) <= set(CHOOSERS)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError):
        play(SMALL, "clairvoyant")


def test_the_configuration_reaches_the_policies() -> None:
    tight = ReplicaRoutingConfig(spill_ratio=1.0, spill_requests=0.0)
    workload = replace(WORKLOADS["chat"], conversations=60)
    assert play(workload, "prefix", config=tight).spilt_share > (
        play(workload, "prefix").spilt_share
    )


def command(*options: str) -> Result:
    return CliRunner().invoke(app, options)


def test_the_command_prints_a_line_for_every_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "pair", SMALL)
    ended = command("--workload", "pair", "--gateways", "2", "--seed", "4")
    assert ended.exit_code == 0
    lines = [re.split(r" {2,}", line) for line in ended.stdout.splitlines()]
    assert [cells[1] for cells in lines] == ["policy", *CHOOSERS]


def test_over_several_seeds_the_difference_has_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "nothing-shared", replace(SMALL, name="nothing-shared"))
    ended = command("--workload", "nothing-shared", "--gateways", "2", "--seeds", "3")
    assert ended.exit_code == 0
    assert "3 seeds" in ended.stdout
    refused = command("--seeds", "1")
    assert refused.exit_code == 2
    assert "--seeds" in refused.stderr
    assert "greater than or equal to 2" in refused.stderr


def test_the_command_refuses_what_it_does_not_know() -> None:
    refused = command("--workload", "nonsense").exception
    assert isinstance(refused, ConfigError)
    assert "nothing-shared" in refused.message
