"""The figures of a run on a terminal."""

from __future__ import annotations

import pytest

from loadtests.run_view import failures_in_words


@pytest.mark.parametrize(
    ("errors", "statuses", "words"),
    [
        ({"connect": 9}, {}, "9 no connection"),
        (
            {"http": 5, "timeout": 1},
            {"404": 3, "503": 2},
            "5 refused by status, 1 no answer in time (3 x 404, 2 x 503)",
        ),
        ({"novel": 1}, {}, "1 novel"),
    ],
)
def test_failures_are_told_with_their_statuses(
    errors: dict[str, int], statuses: dict[str, int], words: str
) -> None:
    assert failures_in_words({"errors": errors, "statuses": statuses}) == words
