"""An engine with work and without steps is stalled; a slow or an idle one is not."""

from __future__ import annotations

from typing import Any

import pytest

from serving.engine.watchdog import is_stalled

HUNG: dict[str, Any] = {
    "open_requests": 1,
    "busy_since_s": 100.0,
    "last_step_s": 105.0,
    "now_s": 236.0,
    "limit_s": 120.0,
}


def test_work_without_steps_is_a_stall() -> None:
    assert is_stalled(**HUNG)


@pytest.mark.parametrize(
    "why",
    [
        {"open_requests": 0},
        {"last_step_s": 230.0},
        {"busy_since_s": 230.0, "last_step_s": 5.0},
        {"limit_s": 0.0},
        {"now_s": 225.0},
    ],
    ids=["idle", "it steps", "the work is new", "switched off", "not yet"],
)
def test_anything_else_is_not(why: dict[str, Any]) -> None:
    assert not is_stalled(**(HUNG | why))
