"""How many replicas a model needs for the requests it has. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def decide(
    open_requests: float,
    queued: float,
    *,
    target_requests: float,
    minimum: int,
    maximum: int,
    current: int,
    now_s: float,
    hold_s: float,
    state: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Replicas for `open_requests`, at once upwards and after `hold_s` of lower need downwards.

    Args:
        open_requests: requests inside all replicas.
        queued: control calls that wait for a replica: somebody wants a model that sleeps.
        target_requests: what one replica should have open.
        current: replicas there are.
        state: what the last call returned.

    Returns:
        The number of replicas, between `minimum` and `maximum`, and the state for the next call.
    """
    need = max(math.ceil(open_requests / target_requests), 1 if queued else 0)
    need = min(max(need, minimum), maximum)
    if need >= current:
        return need, {}
    since_s = float(state.get("lower_since_s", now_s))
    if now_s - since_s < hold_s:
        return min(max(current, minimum), maximum), {"lower_since_s": since_s}
    return need, {"lower_since_s": since_s}
