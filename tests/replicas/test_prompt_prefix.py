"""Hashes of prompts' beginnings: equal if and only if the beginnings are, and never text."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.replicas import rendered_prompt
from serving.replicas.prompt_prefix import (
    BLOCK_BYTES,
    EMPTY,
    MAX_ENDS,
    PromptPrefix,
    prompt_prefix,
    session_key,
    tenant_salt,
)
from serving.replicas.rendered_prompt import MAX_MESSAGES

unhurried = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
CHAT = "/v1/chat/completions"
SALT = b"tenant"


def chat(*messages: dict[str, Any], path: str = CHAT, **more: Any) -> PromptPrefix:
    return prompt_prefix(path, {"messages": list(messages), **more}, SALT)


def say(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def shared_bytes(one: PromptPrefix, other: PromptPrefix) -> int:
    """The longest beginning that an index would find."""
    return max((end for hash_, end in points(one) if hash_ in other.hashes), default=0)


def points(prompt: PromptPrefix) -> list[tuple[int, int]]:
    return list(zip(prompt.hashes, prompt.ends, strict=True))


# ---- blocks ------------------------------------------------------------------------------------------


TEXTS = st.binary(max_size=3000).map(lambda data: data.decode("latin-1"))
TAILS = st.binary(max_size=600).map(lambda data: data.decode("latin-1"))


def hashed(text: str, salt: bytes = SALT, block_bytes: int = 64, **more: int) -> PromptPrefix:
    """A prompt that is one text: its beginnings end with blocks, and where it ends itself."""
    return prompt_prefix("/v1/completions", {"prompt": text}, salt, block_bytes, **more)


@unhurried
@given(TEXTS, TAILS, TAILS)
def test_hashes_are_equal_exactly_as_long_as_the_texts_are(head: str, one: str, other: str) -> None:
    texts = [(head + tail).encode() for tail in (one, other)]
    first, second = hashed(head + one), hashed(head + other)
    common = next(
        (at for at, (a, b) in enumerate(zip(*texts, strict=False)) if a != b),
        min(map(len, texts)),
    )
    shared = {end for end in first.ends if end <= common} & set(second.ends)
    blocks = {end for end in hashed("a" * (common + 1)).ends if end <= common}
    assert shared >= blocks, "every whole block of what both have"
    assert not any(end > common for hash_, end in points(first) if hash_ in second.hashes)
    hash_of = [{end: hash_ for hash_, end in points(prompt)} for prompt in (first, second)]
    assert [hash_of[0][end] for end in shared] == [hash_of[1][end] for end in shared]


@unhurried
@given(st.text("ab", min_size=64, max_size=2000), st.binary(max_size=9), st.binary(max_size=9))
def test_other_salts_have_nothing_in_common(text: str, one: bytes, other: bytes) -> None:
    if one != other:
        assert not set(hashed(text, one).hashes) & set(hashed(text, other).hashes)


def test_salt_and_text_are_kept_apart() -> None:
    one, other = hashed("a" * 64, b"b" * 64), hashed("b" * 64 + "a" * 64, b"")
    assert not set(one.hashes) & set(other.hashes)


def test_long_texts_have_few_blocks_and_what_is_too_long_is_left_out() -> None:
    assert len(hashed("a" * 128 * 1024, block_bytes=BLOCK_BYTES).hashes) < 40
    assert len(hashed("a" * (1 << 24), block_bytes=BLOCK_BYTES, max_bytes=1 << 24).hashes) < 80
    cut, whole = hashed("a" * 9000, max_bytes=5000), hashed("a" * 5000)
    assert points(cut) == points(whole)[:-1]
    assert whole.ends[-1] == 5000


def test_a_text_has_as_many_beginnings_as_whole_blocks_and_itself() -> None:
    ends = {size: hashed("a" * size, block_bytes=BLOCK_BYTES).ends for size in (1023, 1024, 1025)}
    assert ends == {1023: (1023,), 1024: (1024,), 1025: (1024, 1025)}


# ---- prompts -----------------------------------------------------------------------------------------


@unhurried
@given(st.lists(st.text(max_size=300), min_size=1, max_size=24), st.text(max_size=300))
def test_the_next_turn_finds_all_earlier_messages(texts: list[str], question: str) -> None:
    said = [say(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]
    before = chat(*said)
    after = chat(*said, say("assistant", "yes"), say("user", question))
    assert before.ends[-1] == before.total_bytes
    assert shared_bytes(after, before) == before.total_bytes
    assert after.opening == before.opening


@unhurried
@given(st.text(max_size=200), st.text(max_size=200))
def test_two_conversations_share_their_system_prompt_and_no_more(one: str, other: str) -> None:
    system = say("system", "You are helpful. " * 20)
    first, second = chat(system, say("user", one)), chat(system, say("user", other))
    assert first.head == second.head != 0
    assert first.head_bytes > 340
    if one != other:
        assert shared_bytes(first, second) == first.head_bytes
        assert first.opening != second.opening


def test_a_long_message_is_shared_as_far_as_it_is_equal() -> None:
    document = "All of this is the same. " * 4000
    one = chat(say("user", document + "Who wrote it?"))
    other = chat(say("user", document + "When was it written?"))
    assert 0.85 * len(document) < shared_bytes(one, other) <= len(document) + 5


def test_an_edited_message_is_not_shared_nor_what_follows() -> None:
    said = [say("user", f"{number} " * 300) for number in range(6)]
    edited = copy.deepcopy(said)
    edited[3]["content"] = "edited"
    whole = chat(*said)
    third = sum(len(message["content"]) + 6 for message in said[:3])
    assert shared_bytes(whole, chat(*edited)) == third


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (say("user", "ab"), say("user", "a")),
        (say("user", "a"), say("system", "a")),
        (say("user", ["a"]), say("user", ["b"])),
        (say("tool", "4", tool_call_id="x"), say("tool", "4", tool_call_id="y")),
        (
            say("user", [{"type": "text", "text": "a"}]),
            say("user", [{"type": "text", "text": "b"}]),
        ),
    ],
)
def test_different_messages_have_different_hashes(one: Any, other: Any) -> None:
    assert not set(chat(one).hashes) & set(chat(other).hashes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (say("user", "a"), say("user", [{"type": "text", "text": "a"}])),
        (say("assistant", "a"), say("assistant", "a", refusal=None, annotations=[])),
        (
            say("user", [{"type": "text", "text": "a"}]),
            say("user", [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
        ),
        (say("user", "a"), say("user", "a", cache_control={"type": "ephemeral"})),
        (
            say("user", [{"type": "tool_result", "content": "a"}]),
            say("user", [{"type": "tool_result", "content": "a", "cache_control": {"type": "x"}}]),
        ),
        (
            say("tool", "4", tool_call_id="x", name="f"),
            say("tool", "4", name="f", tool_call_id="x"),
        ),
    ],
)
def test_what_engines_read_the_same_way_has_the_same_hash(one: Any, other: Any) -> None:
    assert chat(one).hashes == chat(other).hashes


def test_images_are_told_apart_and_weigh_little() -> None:
    def picture(end: str) -> PromptPrefix:
        url = {"url": "data:image/png;base64," + "A" * 500_000 + end}
        return chat(say("user", [{"type": "image_url", "image_url": url}]))

    assert picture("x").hashes[-1] == picture("x").hashes[-1] != picture("y").hashes[-1]
    assert picture("x").total_bytes < 8000


def test_of_tools_no_more_is_read_than_is_hashed_and_the_rest_counts() -> None:
    tools = [
        {"type": "function", "function": {"name": f"{n}", "text": "d" * 990}} for n in range(9)
    ]
    few, many = (
        prompt_prefix(CHAT, {"messages": [say("user", "a")], "tools": some}, b"", 64, 4096)
        for some in (tools[:6], tools)
    )
    assert few.hashes == many.hashes
    assert 8000 < many.total_bytes < 11_000


def test_tools_come_before_messages() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 3000}}]
    one, other = (chat(say("user", text), tools=tools) for text in ("a", "b"))
    assert shared_bytes(one, other) == one.head_bytes > 3000
    assert not set(chat(say("user", "a")).hashes) & set(one.hashes)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "text " * 500}),
        ("/v1/completions", {"prompt": ["text " * 500, "another"]}),
        ("/v1/completions", {"prompt": list(range(900))}),
        ("/v1/completions", {"prompt": [list(range(900)), [1]]}),
        ("/v1/responses", {"instructions": "be brief " * 200, "input": "hello"}),
        ("/v1/responses", {"instructions": "be brief " * 200, "input": [say("user", "hello")]}),
        ("/v1/responses", {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}),
        ("/v1/messages", {"system": "be brief " * 200, "messages": [say("user", "hello")]}),
        (
            "/v1/messages",
            {
                "system": [{"type": "text", "text": "be brief " * 200}],
                "messages": [say("user", [{"type": "text", "text": "hello"}])],
            },
        ),
    ],
)
def test_every_endpoint_that_generates_is_known(path: str, body: dict[str, Any]) -> None:
    prompt = prompt_prefix(path, body, SALT)
    assert prompt.hashes
    assert prompt.ends[-1] <= prompt.total_bytes
    assert prompt.opening
    assert prompt == prompt_prefix(path, copy.deepcopy(body), SALT)
    assert not set(prompt.hashes) & set(prompt_prefix(path, body, b"other").hashes)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/v1/score"])
def test_prompts_of_other_endpoints_are_not_looked_at(path: str) -> None:
    body = {"input": "text", "query": "text", "documents": ["text"], "text_1": "text"}
    assert prompt_prefix(path, body, SALT) == EMPTY


def test_a_conversation_that_the_model_has_answered_in_follows() -> None:
    assert not chat(say("user", "a")).follows
    assert chat(say("user", "a"), say("assistant", "b"), say("user", "c")).follows


def test_long_conversations_have_few_points() -> None:
    said = [say(("user", "assistant")[number % 2], "word " * 200) for number in range(500)]
    prompt = chat(*said)
    assert len(prompt.hashes) < 60 + MAX_ENDS
    assert list(prompt.ends) == sorted(set(prompt.ends))


def test_messages_and_bytes_beyond_the_bounds_count_for_the_length_only() -> None:
    many = [say("user", "word")] * (2 * MAX_MESSAGES)
    assert chat(*many).total_bytes == 2 * chat(*many[:MAX_MESSAGES]).total_bytes
    assert chat(*many).hashes == chat(*many[:MAX_MESSAGES]).hashes
    body = {"messages": [say("user", "word " * 1000), say("user", "word " * 1000)]}
    short = prompt_prefix(CHAT, body, SALT, max_bytes=6000)
    assert short.ends[-1] <= 6000 < 10_000 < short.total_bytes
    assert short.opening in short.hashes


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=9,
    )
)
def test_whatever_stands_in_a_message_it_can_be_hashed(value: Any) -> None:
    content = value if isinstance(value, str | list) else [value]
    prompt = chat(say("user", content, extra=value), tools=[{"type": value}])
    assert prompt.total_bytes >= prompt.ends[-1] > 0


def test_deep_nesting_and_lone_surrogates_do_no_harm() -> None:
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    assert chat(say("user", "a", extra=deep)).hashes
    assert chat(say("user", "\ud800")).hashes != chat(say("user", "\ud801")).hashes


# ---- keys --------------------------------------------------------------------------------------------


def test_a_session_belongs_to_its_caller() -> None:
    prompt = chat(say("user", "a"))
    keys = {
        session_key("acme", "1", prompt),
        session_key("other", "1", prompt),
        session_key("acme", "2", prompt),
        session_key("acme", None, prompt),
        session_key("other", None, prompt),
    }
    assert len(keys) == 5


def test_without_a_session_the_conversation_is_one() -> None:
    first = chat(say("user", "a"))
    later = chat(say("user", "a"), say("assistant", "b"), say("user", "c"))
    assert session_key("acme", None, first) == session_key("acme", "", later) != ""
    assert session_key("acme", None, EMPTY) == ""


def test_tenants_models_and_adapters_have_salts_of_their_own() -> None:
    salts = {tenant_salt(salt, name) for salt in (None, "a", "b") for name in ("m", "adapter")}
    assert len(salts) == 6


def test_no_text_of_the_prompt_is_kept() -> None:
    prompt = chat(say("system", "canary-7f3a " * 300), say("user", "canary-7f3a"))
    assert "canary" not in repr(prompt)
    assert all(isinstance(value, int) for value in (*prompt.hashes, *prompt.ends, prompt.head))


# ---- work per request --------------------------------------------------------------------------------


def test_parts_beyond_a_number_are_not_read_and_count_by_the_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendered_prompt, "MAX_PARTS", 20)
    read: list[Any] = []
    part = rendered_prompt._part
    monkeypatch.setattr(rendered_prompt, "_part", lambda one: read.append(one) or part(one))
    message = {"role": "user", "content": [{"type": "text", "text": "a" * 100}] * 5}
    prompt = chat(*[message] * 12)
    assert len(read) == 20
    assert prompt.hashes == chat(*[message] * 4).hashes
    assert prompt.total_bytes == 3 * chat(*[message] * 4).total_bytes


def test_token_ids_beyond_a_number_are_not_read_and_count_by_the_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendered_prompt, "MAX_IDS", 1000)
    whole = prompt_prefix("/v1/completions", {"prompt": [12345] * 4000}, SALT)
    first = prompt_prefix("/v1/completions", {"prompt": [12345] * 1000}, SALT)
    assert whole.hashes == first.hashes
    assert whole.total_bytes == 4 * first.total_bytes
