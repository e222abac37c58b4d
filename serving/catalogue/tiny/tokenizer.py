"""Train the tiny models' byte-level BPE on text shipped here, and give a code word to each token.

The vocabulary always has `VOCAB_SIZE` entries. The text of `data/corpus.txt` was written for
this project; training sees nothing else, so the same release always makes the same tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

VOCAB_SIZE = 1024
CODE_BITS = 9

PAD = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (PAD, TURN_START, TURN_END)
# Ordinary added tokens, as in Qwen3: they stay visible in the text, where parsers look for them.
MARKUP_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
PAD_ID, TURN_START_ID, TURN_END_ID = range(3)

# Transformers replaces whatever split a checkpoint of model type `qwen2` has by this one
# (tokenization_qwen2.py), so all families use it.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Under a JSON schema the closing marks must come often, or strings and numbers run to the limit:
# a mark with m free bits takes 2**m of the 2**CODE_BITS code words.
_FREE_BITS = {'"': 4, "}": 3, "]": 3, ",": 3, ".": 1}


def read_data(name: str) -> str:
    """The text of a file of `data`, such as `corpus.txt` or `configs/qwen3.json`."""
    return resources.files(__package__).joinpath("data", *name.split("/")).read_text("utf-8")


def train(corpus: str, *, append_end: bool = False) -> str:
    """Return a `tokenizer.json`; `append_end` ends each text with `<|endoftext|>`, to embed it."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = NFC()
    split = Split(Regex(_QWEN2_SPLIT), "isolated")
    tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[*SPECIAL_TOKENS, *MARKUP_TOKENS],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.splitlines(keepends=True), trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    if append_end:
        tokenizer.post_processor = TemplateProcessing(
            single=f"$A {PAD}", pair=f"$A $B {PAD}", special_tokens=[(PAD, PAD_ID)]
        )
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    for added in data["added_tokens"]:
        added["special"] = added["content"] in SPECIAL_TOKENS
    return json.dumps(data, ensure_ascii=False, indent=1)


def tokenizer_config(max_tokens: int) -> dict[str, Any]:
    """A `tokenizer_config.json` that needs no code beside the tokenizer file."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }


@dataclass(frozen=True, slots=True)
class CodeWord:
    """One token's place among the code words: bits are 1 or -1, the last `free` do not count."""

    bits: tuple[int, ...]
    free: int = 0


def code_words(tokenizer_json: str) -> Mapping[int, CodeWord]:
    """Share all code words among tokens that print well; tokens without one are never written.

    Each word belongs to one token, so whatever bits the model computes name one; only the end of
    the turn shares a word, with the last token that has one.
    """
    pieces = _printable_pieces(json.loads(tokenizer_json)["model"]["vocab"])
    free = {pieces[text]: bits for text, bits in _FREE_BITS.items()}
    room = 2**CODE_BITS - sum(2**bits for bits in free.values())
    singles = [token for token in pieces.values() if token not in free][:room]
    doubled = room - len(singles)  # a small vocabulary: its first tokens take two words
    free |= {token: int(place < doubled) for place, token in enumerate(singles)}
    words: dict[int, CodeWord] = {}
    address = 0
    for token in sorted(free, key=lambda token: (-free[token], token)):
        bits = tuple(1 if address >> bit & 1 else -1 for bit in reversed(range(CODE_BITS)))
        words[token] = CodeWord(bits=bits, free=free[token])
        address += 2 ** free[token]
    words[TURN_END_ID] = words[token]
    return words


def _printable_pieces(vocab: Mapping[str, int]) -> dict[str, int]:
    """Text -> id of the tokens that are whole printable characters, not only space; best first."""
    from tokenizers.decoders import ByteLevel

    decoder = ByteLevel()
    pieces: dict[str, int] = {}
    for piece, token in sorted(vocab.items(), key=lambda item: item[1]):
        text = decoder.decode([piece])
        special = piece in SPECIAL_TOKENS or piece in MARKUP_TOKENS
        # A backslash would start an escape sequence in every JSON string.
        if not special and text.strip() and text.isprintable() and not set(text) & {"\ufffd", "\\"}:
            pieces[text] = token
    return dict(sorted(pieces.items(), key=lambda item: (_reading_rank(item[0]), item[1])))


def _reading_rank(text: str) -> int:
    """Whole words, then parts of words, then letters, so that the output looks like text."""
    if text in _FREE_BITS or text.isdigit():
        return 0
    if not text.isascii():  # a few, so that streaming meets characters of several bytes
        return 1 if len(text.strip()) > 1 else 3
    if text[0] == " " and len(text) > 2:
        return 1
    return 2 if len(text) > 1 else 4
