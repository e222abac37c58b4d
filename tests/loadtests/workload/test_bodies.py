"""Bodies: what goes over the wire for each kind, and that the gateway takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from loadtests.commands.scenario_options import SHIPPED, load
from loadtests.workload import sample_traces
from loadtests.workload.bodies import TOOLS, Composer, Turns, read_prompts
from loadtests.workload.conversations import Conversation, Turn, plan, user_plan
from loadtests.workload.scenario import Scenario
from loadtests.workload.traces import BLOCK_TOKENS
from serving.catalogue.tiny import tokenizer
from serving.errors import ConfigError
from serving.settings import RequestLimits
from serving.trust.fields import endpoints

ENDPOINTS = endpoints(RequestLimits())


def scenario(kind: dict[str, Any], **keys: Any) -> Scenario:
    document = {"name": "s", "classes": [{"name": "c", "model": "m"} | kind], "duration_s": 100}
    return Scenario.model_validate(document | {"arrivals": {"rate_per_s": 20}} | keys)


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


def test_embeddings_share_their_prefix_too() -> None:
    one = scenario({"kind": "embeddings", "shared_prefix_tokens": 20})
    composer = Composer(one)
    first, second = (
        composer.compose(one.classes[0], conversation, 0, Turns())[1]["input"]
        for conversation in plan(one).conversations[:2]
    )
    assert first[: 4 * 20] == second[: 4 * 20]
    assert first[4 * 20 :][:20] != second[4 * 20 :][:20]


def test_prompts_of_a_class_share_their_prefix_and_nothing_else() -> None:
    one = scenario({"kind": "rag", "shared_prefix_tokens": 50})
    composer = Composer(one)
    found = [
        composer.compose(one.classes[0], conversation, 0, Turns())[1]["messages"]
        for conversation in plan(one).conversations
    ]
    assert len({system["content"] for system, _ in found}) == 1
    assert len({user["content"] for _, user in found}) == len(found) > 1000


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = tokenizer.train(tokenizer.read_data("corpus.txt"))
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return folder


def test_blocks_with_the_same_id_have_the_same_text(tokenizer_folder: Path) -> None:
    one = scenario({}, target={"tokenizers": {"m": str(tokenizer_folder)}})
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    composer = Composer(one)
    assert composer.inexact == []

    def ids(tokens: int, *blocks: int) -> list[int]:
        conversation = Conversation(0, "c", 0.0, (Turn(0, tokens, 1),), 77, blocks)
        _, body = composer.compose(one.classes[0], conversation, 0, Turns())
        text = body["messages"][0]["content"]
        return tokenizer.encode(text, add_special_tokens=False).ids

    whole = ids(3 * BLOCK_TOKENS, 4, 5, 6)
    # The last block may be cut, and a trace may name fewer blocks than its length needs.
    for tokens, *blocks in ((1200, 4, 5, 6), (515, 4, 5), (700, 4), (3, 4)):
        found = ids(tokens, *blocks)
        assert len(found) == tokens
        same = min(tokens, len(blocks) * BLOCK_TOKENS)
        assert found[:same] == whole[:same]
    other = ids(2 * BLOCK_TOKENS, 4, 6)
    assert other[:BLOCK_TOKENS] == whole[:BLOCK_TOKENS]
    assert other[BLOCK_TOKENS:] == whole[2 * BLOCK_TOKENS :]


def test_a_trace_shares_blocks_between_its_requests() -> None:
    trace = {"kind": "trace", "trace": str(sample_traces.FOLDER / "mooncake.jsonl")}
    one = scenario({}, arrivals=trace)
    composer, by_block = Composer(one), {}
    for conversation in plan(one).conversations:
        _, body = composer.compose(one.classes[0], conversation, 0, Turns())
        tokens = min(BLOCK_TOKENS, conversation.turns[0].input_tokens)
        first = body["messages"][0]["content"][: 4 * tokens - 1]
        by_block.setdefault(conversation.block_ids[0], []).append(first)
    assert sum(len(texts) > 1 for texts in by_block.values()) == 4
    for texts in by_block.values():
        longest = max(texts, key=len)
        assert all(longest.startswith(text) for text in texts)


def test_prompts_of_ones_own_are_used_in_order(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "first"}\n\n{"prompt": "second"}\n')
    ((_, body),) = compose(scenario({"prompts": str(path)}))
    assert body["messages"] == [{"role": "user", "content": "first"}]
    talk = compose(scenario({"kind": "multi_turn", "turns": 3, "prompts": str(path)}), 3)
    said = [one["content"] for one in talk[2][1]["messages"] if one["role"] == "user"]
    assert said == ["first", "second", "first"]
    for text, complaint in (('{"x": 1}\n', "line 1: must be"), ("", "no prompt in it")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            read_prompts(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_the_gateway_takes_every_body_of_a_shipped_scenario(name: str) -> None:
    one = load(name)
    # Tokenizers are made by the stack; the bodies' fields do not depend on them.
    one = one.model_copy(update={"target": one.target.model_copy(update={"tokenizers": {}})})
    if one.arrivals.kind == "closed":
        conversations = [next(user_plan(one, user)) for user in range(20)]
    else:
        conversations = list(plan(one).conversations[:20])
    composer, kinds = Composer(one), {kind.name: kind for kind in one.classes}
    for conversation in conversations:
        turns = Turns()
        for number in range(len(conversation.turns)):
            kind = kinds[conversation.class_name]
            path, body = composer.compose(kind, conversation, number, turns)
            # Nothing is dropped or refused, or the run would not be what its scenario says.
            assert ENDPOINTS[path].check(body) == body
            turns.answered("")
