"""One moment, and what is left until then."""

from __future__ import annotations

from serving.admission.deadline import Deadline


def test_what_is_left_ends_at_the_moment_and_is_never_negative() -> None:
    deadline = Deadline(10.0)
    assert [deadline.left_s(now) for now in (7.5, 10.0, 12.0)] == [2.5, 0.0, 0.0]
    assert [deadline.has_passed(now) for now in (9.9, 10.0)] == [False, True]
