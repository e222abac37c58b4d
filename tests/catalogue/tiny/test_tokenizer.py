from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from serving.catalogue import tiny
from serving.catalogue.tiny.tokenizer import (
    CODE_BITS,
    PAD_ID,
    TURN_END_ID,
    VOCAB_SIZE,
    code_words,
    read_data,
    train,
)

TEXTS = (
    "The library opens at 09:00.\n\n  def f(x):\n\treturn {x: [1, 2.5]}",
    "Où est la bibliothèque ? Straße, 图书馆在哪里?🙂",
    "<|im_start|>user\n<tool_call>\n{}\n</tool_call><|im_end|>",
)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained() -> str:
    return train(read_data("corpus.txt"))


@pytest.fixture(scope="module")
def chat(cache: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny.build(tiny.family("qwen3"), cache))


def test_training_twice_gives_the_same_file(trained: str) -> None:
    assert train(read_data("corpus.txt")) == trained


def test_every_text_survives_encoding_and_decoding(trained: str) -> None:
    tokenizer = Tokenizer.from_str(trained)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert max(ids) < VOCAB_SIZE


@pytest.mark.parametrize("name", [family.name for family in tiny.families()])
def test_transformers_loads_it_without_remote_code_and_agrees(name: str, cache: Path) -> None:
    from transformers import AutoTokenizer

    folder = tiny.build(tiny.family(name), cache)
    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        assert loaded(text)["input_ids"] == plain.encode(text).ids
    assert (loaded.eos_token_id, loaded.pad_token_id) == (TURN_END_ID, PAD_ID)


def test_embedded_texts_end_with_the_token_whose_state_is_read(cache: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.build(tiny.family("qwen3-embedding"), cache))
    assert tokenizer("Hello")["input_ids"][-1] == PAD_ID
    assert tokenizer("Hello", "there")["input_ids"].count(PAD_ID) == 1


def test_every_combination_of_bits_names_one_token(trained: str) -> None:
    words = code_words(trained)
    covered: list[str] = []
    for token, word in words.items():
        if token == TURN_END_ID:
            continue
        fixed = "".join("1" if bit > 0 else "0" for bit in word.bits[: CODE_BITS - word.free])
        covered += [
            fixed + (f"{rest:0{word.free}b}" if word.free else "") for rest in range(2**word.free)
        ]
    assert sorted(covered) == [f"{number:0{CODE_BITS}b}" for number in range(2**CODE_BITS)]


def test_tokens_that_can_be_written_are_printable(trained: str) -> None:
    tokenizer = Tokenizer.from_str(trained)
    words = code_words(trained)
    texts = [tokenizer.decode([token]) for token in words if token != TURN_END_ID]
    assert all(text.isprintable() and text.strip() and "\ufffd" not in text for text in texts)
    assert {'"', "}", "]", ",", "0", "9"} <= set(texts)
    assert sum(text.isascii() for text in texts) > 0.8 * len(texts)


def test_a_conversation_becomes_chatml(chat: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye"},
    ]
    text = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("enable_thinking", [True, False])
def test_enable_thinking_changes_nothing(chat: Any, enable_thinking: bool) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    assert chat.apply_chat_template(
        messages, tokenize=False, enable_thinking=enable_thinking
    ) == chat.apply_chat_template(messages, tokenize=False)


def test_tools_stand_in_one_system_message(chat: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
    ]
    text = chat.apply_chat_template(messages, tools=[TOOL], tokenize=False)
    assert text.count("<|im_start|>system") == 1
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    listed = text.split("<tools>\n")[1].split("\n</tools>")[0]
    assert json.loads(listed) == TOOL


@pytest.mark.parametrize("arguments", [{"city": "Köln"}, '{"city": "Köln"}'])
def test_calls_and_results_are_shown_as_hermes_writes_them(chat: Any, arguments: Any) -> None:
    call = {"id": "1", "type": "function"}
    call["function"] = {"name": "get_weather", "arguments": arguments}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]
    text = chat.apply_chat_template(messages, tools=[TOOL], tokenize=False)
    shown = text.split("assistant\n\n<tool_call>\n")[1].split("\n</tool_call>")[0]
    assert json.loads(shown) == {"name": "get_weather", "arguments": {"city": "Köln"}}
    assert "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>" in text
