"""Plans: drawn before the run, complete over any number of processes, as the scenario says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.workload import sample_traces
from loadtests.workload.conversations import draw_tokens, plan, share, user_plan
from loadtests.workload.scenario import Scenario, TokensConfig
from serving.errors import ConfigError


def scenario(*classes: dict[str, Any], **keys: Any) -> Scenario:
    named = [{"name": f"c{n}", "model": "m"} | one for n, one in enumerate(classes or ({},))]
    document = {"name": "s", "classes": named, "duration_s": 100, "arrivals": {"rate_per_s": 20}}
    return Scenario.model_validate(document | keys)


@given(count=st.integers(1, 9), seed=st.integers(0, 1000), turns=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_every_request_is_sent_by_exactly_one_process(count: int, seed: int, turns: int) -> None:
    work = plan(scenario({"kind": "multi_turn", "turns": turns}, seed=seed, duration_s=10))
    parts = [share(work, index, count) for index in range(count)]
    numbers = [turn.number for part in parts for one in part for turn in one.turns]
    assert sorted(numbers) == list(range(work.requests))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(list(part) == sorted(part, key=lambda one: one.at_s) for part in parts)


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan(scenario(seed=3)) == plan(scenario(seed=3))
    assert plan(scenario(seed=3)) != plan(scenario(seed=4))


def test_classes_come_by_their_weights() -> None:
    work = plan(scenario({"weight": 3}, {"weight": 1}, {"weight": 1}))
    counts = [
        sum(one.class_name == name for one in work.conversations) for name in ("c0", "c1", "c2")
    ]
    assert counts[0] / sum(counts) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("cv", [0.0, 0.3, 1.0])
def test_token_counts_have_the_mean_and_the_variation(cv: float) -> None:
    random = np.random.default_rng(1)
    drawn = [draw_tokens(TokensConfig(mean=200, cv=cv), random) for _ in range(20_000)]
    assert np.mean(drawn) == pytest.approx(200, rel=0.03)
    assert np.std(drawn) / np.mean(drawn) == pytest.approx(cv, abs=0.08)
    cut = [draw_tokens(TokensConfig(mean=200, cv=1, min=150, max=260), random) for _ in range(500)]
    assert (min(cut), max(cut)) == (150, 260)


@pytest.mark.parametrize("turns", [1, 3, 9])
def test_no_more_are_planned_than_may_be_sent(turns: int) -> None:
    kind = {"kind": "multi_turn", "turns": turns}
    work = plan(scenario(kind, max_requests=7))
    assert [turn.number for one in work.conversations for turn in one.turns] == list(range(7))
    whole = plan(scenario(kind)).conversations
    times = [one.at_s for one in work.conversations]
    assert times == [one.at_s for one in whole[: len(times)]]
    assert [len(one.turns) for one in work.conversations[:-1]] == [turns] * (len(times) - 1)


@pytest.mark.parametrize(
    ("arrivals", "turns", "about"),
    [
        ({"kind": "constant", "rate_per_s": 100_000}, 1, "60480000000"),
        ({"kind": "ramp", "rate_per_s": 1, "to_per_s": 9}, 2, "6048000"),
        ({"kind": "steps", "rates_per_s": [4, 8]}, 1, "3628800"),
    ],
)
def test_what_would_not_fit_into_memory_is_refused(
    arrivals: dict[str, Any], turns: int, about: str
) -> None:
    week = scenario(
        {"kind": "multi_turn", "turns": turns}, arrivals=arrivals, duration_s=7 * 86_400
    )
    with pytest.raises(ConfigError, match=f"duration_s: about {about} requests .* lower it"):
        plan(week)


def test_a_user_of_a_closed_loop_goes_on_for_ever_and_stays_what_it_is() -> None:
    both = scenario({"weight": 1}, {"weight": 1}, arrivals={"kind": "closed"})
    kinds = set()
    for user in range(20):
        asked = list(itertools.islice(user_plan(both, user), 50))
        (kind,) = {one.class_name for one in asked}
        kinds.add(kind)
        assert len({one.seed for one in asked}) == 50
    assert kinds == {"c0", "c1"}


def test_a_trace_gives_times_and_lengths() -> None:
    trace = {"kind": "trace", "trace": str(sample_traces.FOLDER / "burstgpt.csv")}
    work = plan(
        scenario({"input_tokens": {"mean": 1, "max": 300}}, arrivals=trace | {"format": "burstgpt"})
    )
    assert work.left_out > 0
    lengths = [turn.input_tokens for one in work.conversations for turn in one.turns]
    assert max(lengths) == 300
    assert len(set(lengths)) > 50
    outputs = [turn.output_tokens for one in work.conversations for turn in one.turns]
    assert min(outputs) >= 1
    assert [one.at_s for one in work.conversations] == sorted(
        one.at_s for one in work.conversations
    )


def test_embeddings_have_no_output_whether_drawn_or_of_a_trace() -> None:
    trace = {"kind": "trace", "trace": str(sample_traces.FOLDER / "azure.csv"), "format": "azure"}
    for arrivals in (trace, {"rate_per_s": 20}):
        work = plan(scenario({"kind": "embeddings"}, {}, arrivals=arrivals))
        outputs = {"c0": set(), "c1": set()}
        for one in work.conversations:
            outputs[one.class_name] |= {turn.output_tokens for turn in one.turns}
        assert outputs["c0"] == {0}
        assert min(outputs["c1"]) >= 1


def test_a_faster_trace_has_the_same_requests_sooner() -> None:
    trace = {"kind": "trace", "trace": str(sample_traces.FOLDER / "mooncake.jsonl")}
    slow = plan(scenario(arrivals=trace, duration_s=50)).conversations
    fast = plan(scenario(arrivals=trace | {"speed": 2}, duration_s=25)).conversations
    assert [one.block_ids for one in fast] == [one.block_ids for one in slow]
    assert [one.at_s for one in fast] == pytest.approx([one.at_s / 2 for one in slow])
