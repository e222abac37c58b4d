"""The figures of a run on a terminal."""

from __future__ import annotations

import pytest

from loadtests.answers.ends import broken_in_words, remarks
from loadtests.commands.run_view import failures_in_words, holds, slo_in_words


@pytest.mark.parametrize(
    ("errors", "statuses", "words"),
    [
        ({"connect": 9}, {}, "9 no connection"),
        (
            {"http": 5, "timeout": 1},
            {"404": 3, "503": 2},
            "5 refused by status, 1 no answer in time (3 x 404, 2 x 503)",
        ),
        ({"error_body": 2, "novel": 1}, {}, "2 error with status 200, 1 novel"),
    ],
)
def test_failures_are_told_with_their_statuses(
    errors: dict[str, int], statuses: dict[str, int], words: str
) -> None:
    assert failures_in_words({"errors": errors, "statuses": statuses}) == words


def test_a_class_with_a_broken_answer_holds_no_slo() -> None:
    group = {"attainment": 0.99, "slo": {"target": 0.95}, "broken": 0}
    assert (holds(group), slo_in_words(group)) == (True, "holds")
    group["broken"] = 1
    assert (holds(group), slo_in_words(group)) == (False, "BROKEN")
    # As a summary of an older run is.
    assert slo_in_words({"attainment": 0.9, "slo": {"target": 0.95}}) == "MISSED"


def test_broken_answers_are_named_without_other_failures() -> None:
    summary = {"broken": 3, "requests": 9, "errors": {"timeout": 4, "truncated": 2, "empty": 1}}
    words = broken_in_words(summary)
    assert words.startswith("3 of 9 requests: 2 cut off, 1 without content; ")
    assert "in time" not in words


def test_what_was_not_as_asked_is_remarked() -> None:
    assert list(remarks({"without_usage": 0, "ended_early": 0})) == []
    usage, early = remarks({"without_usage": 4, "ended_early": 5})
    assert usage.startswith("4 answers had no usage")
    assert early.startswith("5 answers have fewer tokens than planned")
