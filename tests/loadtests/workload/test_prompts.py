"""Prompts: exactly as many tokens as asked for, no two the same, shared where they should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from loadtests.workload.prompts import Prompts, load_prompts
from serving.catalogue.tiny.tokenizer import read_data, train
from serving.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    corpus = read_data("corpus.txt")
    return Tokenizer.from_str(train(corpus))


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


@given(parts=st.lists(st.tuples(st.integers(1, 90), st.integers(0, 2**40)), min_size=2, max_size=5))
@settings(max_examples=40, deadline=None)
def test_texts_one_after_another_have_as_many_tokens_as_they_had(
    tokenizer: Tokenizer, prompts: Prompts, parts: list[tuple[int, int]]
) -> None:
    whole = " ".join(prompts.text(*part) for part in parts)
    ids = tokenizer.encode(whole, add_special_tokens=False).ids
    assert len(ids) == sum(tokens for tokens, _ in parts)


@given(short=st.integers(1, 40), longer=st.integers(0, 600), seed=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_a_shorter_text_of_a_seed_begins_the_longer_one(
    prompts: Prompts, short: int, longer: int, seed: int
) -> None:
    assert prompts.text(short + longer, seed).startswith(prompts.text(short, seed))


def trained(model: models.Model, trainer: trainers.Trainer, before: object) -> Tokenizer:
    made = Tokenizer(model)
    made.normalizer, made.pre_tokenizer = normalizers.NFC(), before
    made.train_from_iterator(read_data("corpus.txt").splitlines(), trainer)
    return made


def word_piece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=["[UNK]"], show_progress=False
    )
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.Whitespace())


def unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    made = trained(models.Unigram(), trainer, pre_tokenizers.Metaspace())
    made.decoder = decoders.Metaspace()
    return made


@pytest.mark.parametrize("make", [word_piece, unigram])
def test_other_kinds_of_tokenizers_are_exact_too(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    prompts = Prompts.of(tokenizer)
    assert prompts.is_exact
    for tokens in (1, 5, 100, 777):
        text = prompts.text(tokens, tokens)
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == tokens


def test_a_file_that_cuts_and_fills_texts_is_exact_too(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(128)
    cutting.enable_padding(length=64)
    cutting.save(str(tmp_path / "tokenizer.json"))
    assert not Prompts.of(cutting).is_exact
    assert load_prompts(str(tmp_path)).is_exact


def test_a_tokenizer_with_too_few_words_is_said_to_be_inexact() -> None:
    few = Tokenizer(models.WordLevel({"a": 0, "of": 1, "[UNK]": 2}, unk_token="[UNK]"))
    few.pre_tokenizer = pre_tokenizers.Whitespace()
    prompts = Prompts.of(few)
    assert not prompts.is_exact
    assert len(prompts.text(50, 1)) == 199


def test_two_thousand_prompts_of_500_tokens_take_less_than_a_second(prompts: Prompts) -> None:
    began_s = time.process_time()
    for seed in range(500):
        prompts.text(500, seed)
    assert time.process_time() - began_s < 0.25


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
