"""The ends of a request: a word for each, its meaning, and whether it is a broken answer. Pure.

Records, summaries, reports and exit codes use these words; `docs/load-testing.md` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

End = Literal[
    "",
    "connect",
    "timeout",
    "reset",
    "http",
    "cancelled",
    "error_body",
    "error_event",
    "malformed",
    "truncated",
    "aborted",
    "no_finish_reason",
    "empty",
    "short",
]


class Meaning(NamedTuple):
    """`short` for a terminal, `sentence` for a report.

    `is_broken`: the status was 200, without a complete, well-formed answer. Such an endpoint cannot be
    measured: it may be fast because it does not answer at all.
    """

    short: str
    sentence: str
    is_broken: bool = False


ENDS: Mapping[End, Meaning] = {
    "connect": Meaning("no connection", "no connection could be made"),
    "timeout": Meaning("no answer in time", "no complete answer came within the time allowed"),
    "reset": Meaning("connection lost", "the connection broke before an answer began"),
    "http": Meaning("refused by status", "an HTTP status other than 200"),
    "cancelled": Meaning("not answered at the end", "given up when the run ended"),
    "error_body": Meaning("error with status 200", "status 200, and the body is an error", True),
    "error_event": Meaning("ended by an error event", "the stream ended with an error event", True),
    "malformed": Meaning(
        "not as the API answers",
        "what came is not HTTP, not JSON, or not what this endpoint answers with",
        True,
    ),
    "truncated": Meaning(
        "cut off", "the answer stopped before its end: [DONE], message_stop or its length", True
    ),
    "aborted": Meaning(
        "aborted by the server", "the finish reason says that the server gave up", True
    ),
    "no_finish_reason": Meaning(
        "without a finish reason", "the answer ended and did not say why", True
    ),
    "empty": Meaning(
        "without content", "the answer has no choice, vector or text, or no tokens", True
    ),
    "short": Meaning(
        "shorter than asked",
        "fewer tokens than were asked for, and the finish reason says that they are all",
        True,
    ),
}
BROKEN = frozenset(word for word, meaning in ENDS.items() if meaning.is_broken)


def broken_in(errors: Mapping[str, int]) -> int:
    """The number of broken answers in these counts by word."""
    return sum(count for word, count in errors.items() if word in BROKEN)


def in_words(word: str) -> str:
    """The end's name for a terminal; words of older runs unchanged."""
    meaning = next((found for known, found in ENDS.items() if known == word), None)
    return meaning.short if meaning else word


def sentence_of(word: str) -> str:
    """The end's sentence for a report; empty for words of older runs."""
    meaning = next((found for known, found in ENDS.items() if known == word), None)
    return meaning.sentence if meaning else ""


def counts_in_words(errors: Mapping[str, int], words: Iterable[str] | None = None) -> str:
    """The counts of ends in words, in their order."""
    wanted = errors if words is None else [word for word in errors if word in set(words)]
    return ", ".join(f"{errors[word]} {in_words(word)}" for word in wanted)


def broken_in_words(summary: Mapping[str, Any]) -> str:
    """The warning about broken answers, of which there are some."""
    return (
        f"{summary['broken']} of {summary['requests']} requests: "
        f"{counts_in_words(summary['errors'], BROKEN)}; "
        "they count as failed, do not build on this run until the server is fixed"
    )


def remarks(summary: Mapping[str, Any]) -> Iterator[str]:
    """Deviations in answers that count as good."""
    if count := summary.get("without_usage"):
        yield f"{count} answers had no usage, although it was asked for: their tokens are not counted"
    if count := summary.get("ended_early"):
        yield (
            f"{count} answers have fewer tokens than planned: the server does not honour ignore_eos, "
            "so this run cannot be compared with one of another server"
        )
