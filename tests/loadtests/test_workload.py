"""Plans: drawn before the run, complete over any number of processes, as the scenario says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests import sample_traces
from loadtests.bodies import TOOLS, Composer, Turns, read_prompts
from loadtests.scenario import Scenario, TokensConfig
from loadtests.workload import draw_tokens, plan, share, user_plan
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


def test_no_more_are_planned_than_may_be_sent() -> None:
    assert plan(scenario(max_requests=7)).requests == 7


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


# ---- bodies ------------------------------------------------------------------------------------------


def compose(one: Scenario, turns: int = 1) -> list[tuple[str, dict[str, Any]]]:
    composer, said = Composer(one), Turns()
    conversation = plan(one).conversations[0]
    found = []
    for number in range(turns):
        found.append(composer.compose(one.classes[0], conversation, number, said))
        said.answered(f"answer {number}")
    return found


def test_a_chat_asks_for_its_length_and_its_usage() -> None:
    ((path, body),) = compose(scenario({"output_tokens": 17, "shared_prefix_tokens": 10}))
    assert path == "/v1/chat/completions"
    assert [one["role"] for one in body["messages"]] == ["system", "user"]
    assert (body["max_tokens"], body["ignore_eos"], body["temperature"]) == (17, True, 0)
    assert body["stream_options"] == {"include_usage": True}
    ((_, body),) = compose(scenario({"stream": False}))
    assert "stream_options" not in body


def test_a_conversation_grows_by_what_was_answered() -> None:
    bodies = [body for _, body in compose(scenario({"kind": "multi_turn", "turns": 3}), 3)]
    assert [len(body["messages"]) for body in bodies] == [1, 3, 5]
    assert bodies[2]["messages"][:3] == bodies[1]["messages"]
    assert bodies[2]["messages"][3] == {"role": "assistant", "content": "answer 1"}


def test_an_agent_answers_with_what_its_tools_found() -> None:
    bodies = [body for _, body in compose(scenario({"kind": "agent", "turns": 2}), 2)]
    assert bodies[0]["tools"] == TOOLS
    assert [one["role"] for one in bodies[1]["messages"]] == ["user", "assistant", "tool"]
    call = bodies[1]["messages"][1]["tool_calls"][0]
    assert bodies[1]["messages"][2]["tool_call_id"] == call["id"]


def test_embeddings_are_asked_for_with_their_text_only() -> None:
    ((path, body),) = compose(scenario({"kind": "embeddings"}))
    assert path == "/v1/embeddings"
    assert set(body) == {"model", "input"}


def test_blocks_with_the_same_id_have_the_same_text() -> None:
    trace = {"kind": "trace", "trace": str(sample_traces.FOLDER / "mooncake.jsonl")}
    one = scenario(arrivals=trace)
    composer, by_block = Composer(one), {}
    for conversation in plan(one).conversations:
        _, body = composer.compose(one.classes[0], conversation, 0, Turns())
        text = body["messages"][0]["content"]
        first = text[: 4 * min(512, conversation.turns[0].input_tokens) - 1]
        by_block.setdefault(conversation.block_ids[0], []).append(first)
    shared = [texts for texts in by_block.values() if len(texts) > 1]
    assert shared
    for texts in shared:
        shortest = min(map(len, texts))
        assert len({text[: min(shortest, 4 * 5)] for text in texts}) == 1


def test_prompts_of_ones_own_are_used_in_order(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "first"}\n\n{"prompt": "second"}\n')
    ((_, body),) = compose(scenario({"prompts": str(path)}))
    assert body["messages"] == [{"role": "user", "content": "first"}]
    for text, complaint in (('{"x": 1}\n', "line 1: must be"), ("", "no prompt in it")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            read_prompts(path)
