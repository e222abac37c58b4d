"""Whether two servers answer alike: the same prompts at temperature 0, streamed and whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.bench.compare.clients import Target
from loadtests.bench.compare.server import complete

PROMPTS = (
    "Bonjour",
    "Count to a hundred",
    "What does a gateway in front of an engine cost?",
    "写一首关于春天的诗",
    "List three European capitals as JSON",
)
TOKENS = 48


@dataclass(frozen=True)
class Comparison:
    """The number of compared texts, and of different ones."""

    texts: int
    different: int

    @property
    def is_same(self) -> bool:
        """Whether there was something to compare and all of it is the same."""
        return self.texts > 0 and not self.different


Texts = Mapping[str, str | None]


def collect(target: Target) -> dict[str, str | None]:
    """The text of each prompt, streamed and whole; None where a server gave none."""
    found: dict[str, str | None] = {}
    for prompt in PROMPTS:
        found[f"{prompt} (whole)"] = complete(target, prompt, TOKENS)
        found[f"{prompt} (streamed)"] = complete(target, prompt, TOKENS, stream=True)
    return found


def compare(one: Texts, other: Texts) -> Comparison:
    """Compare texts; a missing one counts as different."""
    different = sum(text is None or text != other.get(name) for name, text in one.items())
    return Comparison(len(one), different)
