"""Prompts: exactly as many tokens as asked for, no two the same, shared where they should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from loadtests.prompts import Prompts, load_prompts
from serving.catalogue import tiny_tokenizer
from serving.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    corpus = tiny_tokenizer.read_data("corpus.txt")
    return Tokenizer.from_str(tiny_tokenizer.train(corpus))


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> Prompts:
    return Prompts.of(tokenizer)


@given(tokens=st.integers(1, 900), seed=st.integers(0, 2**63))
@settings(max_examples=80, deadline=None)
def test_a_text_has_exactly_as_many_tokens(
    tokenizer: Tokenizer, prompts: Prompts, tokens: int, seed: int
) -> None:
    assert prompts.is_exact
    text = prompts.text(tokens, seed)
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) == tokens
    assert text == prompts.text(tokens, seed)


def test_texts_of_two_seeds_differ_at_their_beginning(prompts: Prompts) -> None:
    texts = {prompts.text(6, seed) for seed in range(20_000)}
    assert len(texts) == 20_000


def test_without_a_tokenizer_four_characters_are_a_token() -> None:
    prompts = Prompts.without_tokenizer()
    assert not prompts.is_exact
    assert len(prompts.text(100, 1)) == 399


def test_a_tokenizer_is_read_from_a_file_or_its_folder(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_prompts(str(place)).is_exact


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not there; give a folder with tokenizer\.json"):
        load_prompts(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no tokenizer"):
        load_prompts(str(tmp_path))
