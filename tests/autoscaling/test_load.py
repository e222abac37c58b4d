"""How many replicas a model gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaling.load import decide


def ask(open_requests: float, current: int, **changes: Any) -> tuple[int, dict[str, Any]]:
    facts: dict[str, Any] = {
        "queued": 0.0,
        "target_requests": 10,
        "minimum": 0,
        "maximum": 4,
        "now_s": 1000.0,
        "hold_s": 60.0,
        "state": {},
    }
    return decide(open_requests, current=current, **facts | changes)


@pytest.mark.parametrize(("open_requests", "wanted"), [(1, 1), (10, 1), (11, 2), (35, 4), (900, 4)])
def test_more_load_gets_more_replicas_at_once(open_requests: float, wanted: int) -> None:
    assert ask(open_requests, 1)[0] == wanted


def test_a_sleeping_model_wakes_for_one_who_waits() -> None:
    assert ask(0, 0)[0] == 0
    assert ask(0, 0, queued=1.0)[0] == 1


def test_less_load_takes_replicas_away_only_after_a_while() -> None:
    count, state = ask(5, 3)
    assert count == 3
    assert ask(5, 3, now_s=1059.0, state=state)[0] == 3
    assert ask(5, 3, now_s=1060.0, state=state)[0] == 1


def test_a_moment_of_load_starts_the_wait_anew() -> None:
    _, state = ask(5, 3)
    _, state = ask(30, 3, now_s=1050.0, state=state)
    count, state = ask(5, 3, now_s=1061.0, state=state)
    assert count == 3
    assert state == {"lower_since_s": 1061.0}


@given(st.floats(0, 1e6), st.integers(0, 9), st.integers(0, 3), st.integers(3, 9))
def test_the_bounds_hold_whatever_the_load(
    open_requests: float, current: int, minimum: int, maximum: int
) -> None:
    count, _ = ask(open_requests, current, minimum=minimum, maximum=maximum)
    assert minimum <= count <= maximum
