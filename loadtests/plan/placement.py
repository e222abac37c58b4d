"""Puts replicas on nodes, and adds spares until losing nodes or replicas leaves enough. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Domain = Literal["replica", "node"]


@dataclass(frozen=True, slots=True)
class Placed:
    """Replicas of one model: `needed` for the load, `total` with spares, the most that share a node."""

    needed: int
    total: int
    most_on_a_node: int

    @property
    def spare(self) -> int:
        """Replicas beyond those needed."""
        return self.total - self.needed


def place(
    needed: Mapping[str, int],
    gpus_each: Mapping[str, int],
    gpus_per_node: int,
    spares: int,
    domain: Domain,
) -> tuple[dict[str, Placed], int]:
    """Replicas of models that share nodes of one kind.

    Args:
        needed: replicas that the load needs, by model.
        gpus_each: GPUs of a replica, by model. More than a node has: whole nodes are taken.
        spares: how many failure domains may be lost at once.
        domain: what fails: a replica, or a node with all that stands on it.

    Returns:
        What became of each model, and the number of nodes.
    """
    total = {name: count + spares for name, count in needed.items()}
    while True:
        nodes, most = _pack(total, gpus_each, gpus_per_node, spares + 1)
        if domain == "replica":
            break
        short = [
            name for name, count in needed.items() if total[name] - spares * most[name] < count
        ]
        if not short:
            break
        for name in short:
            total[name] += 1
    placed = {name: Placed(count, total[name], most[name]) for name, count in needed.items()}
    return placed, nodes


def _pack(
    total: Mapping[str, int], gpus_each: Mapping[str, int], per_node: int, least_nodes: int
) -> tuple[int, dict[str, int]]:
    """Spread each model over as few nodes as hold all; the number of nodes, and the most of each on one."""
    small = {name: gpus for name, gpus in gpus_each.items() if gpus <= per_node}
    whole = sum(
        total[name] * math.ceil(gpus / per_node)
        for name, gpus in gpus_each.items()
        if name not in small
    )
    most = dict.fromkeys(total, 1)
    if not small:
        return whole, most
    nodes = max(
        math.ceil(sum(total[name] * gpus for name, gpus in small.items()) / per_node),
        min(least_nodes, max(total[name] for name in small)),
    )
    while (spread := _spread(total, small, per_node, nodes)) is None:
        nodes += 1
    return whole + nodes, most | {name: max(counts) for name, counts in spread.items()}


def _spread(
    total: Mapping[str, int], gpus_each: Mapping[str, int], per_node: int, nodes: int
) -> dict[str, Sequence[int]] | None:
    """Replicas of each model on each node, evenly; None where they do not fit."""
    free = [per_node] * nodes
    counts = {name: [0] * nodes for name in gpus_each}
    # The largest first: they fit on the fewest nodes. Each round puts at most one replica on a node.
    for name, gpus in sorted(gpus_each.items(), key=lambda one: (-one[1], one[0])):
        left = total[name]
        while left:
            fits = [node for node in range(nodes) if free[node] >= gpus]
            if not fits:
                return None
            for node in sorted(fits, key=lambda one: (-free[one], one))[:left]:
                counts[name][node] += 1
                free[node] -= gpus
                left -= 1
    return {name: tuple(one) for name, one in counts.items()}
