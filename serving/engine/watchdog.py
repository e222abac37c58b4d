"""Notices an engine that takes requests and produces nothing. Pure."""

from __future__ import annotations


def is_stalled(
    *,
    open_requests: int,
    busy_since_s: float,
    last_step_s: float,
    now_s: float,
    limit_s: float,
) -> bool:
    """Whether requests have been open for `limit_s` without a scheduler step.

    An engine that lives always steps while it has work; how long an answer takes does not matter.

    Args:
        open_requests: requests inside the replica.
        busy_since_s: when the first of them came after there had been none.
        last_step_s: the engine's last scheduler step.
        now_s: time now; all times on one monotonic clock.
        limit_s: the longest a step may take; 0 never calls it stalled.
    """
    if not open_requests or not limit_s:
        return False
    return now_s - max(busy_since_s, last_step_s) > limit_s
