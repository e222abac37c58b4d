"""An engine with work and without steps is stalled; a slow or an idle one is not."""

from __future__ import annotations

from typing import Any

import pytest

from serving.engine.watchdog import is_stalled

HUNG: dict[str, Any] = {"last_step_s": 105.0, "now_s": 236.0, "limit_s": 120.0}


def test_work_without_steps_is_a_stall() -> None:
    assert is_stalled(lambda: 100.0, **HUNG)


@pytest.mark.parametrize(
    ("since_s", "why"),
    [
        (None, {}),
        (100.0, {"last_step_s": 230.0}),
        (230.0, {"last_step_s": 5.0}),
        (100.0, {"limit_s": 0.0}),
        (100.0, {"now_s": 225.0}),
    ],
    ids=["idle", "it steps", "the work is new", "switched off", "not yet"],
)
def test_anything_else_is_not(since_s: float | None, why: dict[str, Any]) -> None:
    assert not is_stalled(lambda: since_s, **(HUNG | why))


def test_requests_are_looked_at_only_when_the_last_step_was_long_ago() -> None:
    def expensive() -> float:
        raise AssertionError("the engine steps")

    assert not is_stalled(expensive, **(HUNG | {"last_step_s": 230.0}))
