"""Detects an engine that takes requests and produces nothing. Pure."""

from __future__ import annotations

from collections.abc import Callable


def is_stalled(
    awaiting_since_s: Callable[[], float | None],
    *,
    last_step_s: float,
    now_s: float,
    limit_s: float,
) -> bool:
    """Whether requests have waited for `limit_s` without a scheduler step.

    A live engine always steps while it has work; the duration of an answer does not matter.

    Args:
        awaiting_since_s: since when a request has been waiting for the engine (None: none is); asked only
            when the last step was long ago.
        last_step_s: the engine's last scheduler step.
        now_s: time now; all times on one monotonic clock.
        limit_s: the longest a step may take; 0 never calls it stalled.
    """
    if not limit_s or now_s - last_step_s <= limit_s:
        return False
    since_s = awaiting_since_s()
    return since_s is not None and now_s - since_s > limit_s
