"""Synthetic text with an exact number of tokens, cheap enough to be made while a test runs.

Text is made of words that are one token each, alone and after others, so that n words are n tokens; samples
are counted by the tokenizer to prove it. Without a tokenizer a token is taken for four characters.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from serving.catalogue import tiny
from serving.config.paths import expanded
from serving.errors import ConfigError
from serving.settings import ProcessSettings

TINY = "tiny:"
# Words that are looked for; more make texts no better.
MAX_WORDS = 2000
MIN_WORDS = 16
# Lengths at which a tokenizer's counts are checked.
CHECKED = (1, 2, 3, 7, 64, 513)
# So many words at the beginning tell texts apart.
NAME_WORDS = 6


class Prompts:
    """Makes texts.

    Attributes:
        is_exact: whether a text has exactly as many tokens as were asked for.
    """

    def __init__(self, words: Sequence[str], *, is_exact: bool) -> None:
        self._words = list(words)
        self.is_exact = is_exact

    @classmethod
    def without_tokenizer(cls) -> Prompts:
        """By characters: words of three letters and a space."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        draw = random.Random(0)
        return cls(
            sorted({"".join(draw.choices(letters, k=3)) for _ in range(512)}), is_exact=False
        )

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Prompts:
        """By a tokenizer; if no text of it can be counted on, by characters."""
        found = cls(_single_tokens(tokenizer), is_exact=True)
        if len(found._words) < MIN_WORDS:
            return cls.without_tokenizer()
        for number, tokens in enumerate(CHECKED):
            if _count(tokenizer, found.text(tokens, number)) != tokens:
                return cls.without_tokenizer()
        return found

    def text(self, tokens: int, seed: int) -> str:
        """A text of its own for each seed; two seeds' texts differ within their first six words.

        Shorter ones can only be told apart as far as there are words.
        """
        words, count = self._words, len(self._words)
        named, rest = [], seed
        for _ in range(min(tokens, NAME_WORDS)):
            rest, place = divmod(rest, count)
            named.append(words[place])
        draw = random.Random(seed)
        return " ".join(named + draw.choices(words, k=max(0, tokens - len(named))))


def load_prompts(where: str | None) -> Prompts:
    """From a folder with `tokenizer.json`, such a file, or `tiny:FAMILY`, one of Comptoir's tiny models.

    Raises:
        ConfigError: there is no tokenizer.
    """
    if where is None:
        return Prompts.without_tokenizer()
    if where.startswith(TINY):
        family = tiny.family(where.removeprefix(TINY))
        path = tiny.build(family, ProcessSettings.load().cache_dir)
    else:
        path = expanded(Path(where), "target.tokenizers")
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"target.tokenizers: {file} is not there; give a folder with tokenizer.json, "
            f"or {TINY}qwen3 for a tiny model",
            param="target.tokenizers",
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
        # Embedding models' files often cut and fill texts, which would be counted wrong.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return Prompts.of(tokenizer)
    except Exception as error:  # noqa: BLE001 - the library raises nothing more special
        raise ConfigError(
            f"target.tokenizers: {file} is no tokenizer: {str(error)[:200]}",
            param="target.tokenizers",
        ) from None


def _single_tokens(tokenizer: Tokenizer) -> list[str]:
    """Words of small letters that are one token at the beginning of a text and one after a space."""
    vocabulary = tokenizer.get_vocab()
    stems = {name.lstrip("Ġ▁ ") for name in vocabulary}
    found: list[str] = []
    for word in sorted(one for one in stems if one.isascii() and one.isalpha() and one.islower()):
        if len(found) >= MAX_WORDS:
            break
        if _count(tokenizer, word) == 1 and _count(tokenizer, f"{word} {word}") == 2:
            found.append(word)
    return found


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
