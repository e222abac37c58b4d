"""The cost of a look-up in the directory, of which a request takes several, by the size of the site."""

from __future__ import annotations

import time

from loadtests.bench.tables import number
from serving.discovery.directory import Replica
from serving.discovery.directory_ray import RayDirectory
from serving.discovery.replica_table import CARDS, SEEN
from serving.replica_facts import ModelCard

SITES, REPLICAS, LOOKS = (1, 134, 1000), 2, 2000


def measure_looks() -> dict[int, dict[str, float]]:
    """Microseconds of a look while nothing changes, and after one replica has, by the number of models."""
    return {models: _measure(models) for models in SITES}


def looks_rows(looks: dict[int, dict[str, float]]) -> list[list[str]]:
    """The rows of a table."""
    return [
        [str(models), number(cost["look_us"], "µs"), number(cost["changed_us"], "µs")]
        for models, cost in looks.items()
    ]


def _measure(models: int) -> dict[str, float]:
    directory = RayDirectory(60)
    names = [f"model-{index}" for index in range(models)]
    # As after a look at Serve's status, which this has not.
    directory._states = dict.fromkeys(names, "RUNNING")
    for name in names:
        CARDS[name] = ModelCard(task="chat")
        SEEN[name] = _replicas(name)
    before = after = float("inf")
    for _ in range(5):
        directory.current  # noqa: B018 - takes over what has changed
        began_s = time.perf_counter()
        for _ in range(LOOKS):
            directory.current  # noqa: B018
        before = min(before, (time.perf_counter() - began_s) / LOOKS)
        replicas = _replicas(names[-1])
        began_s = time.perf_counter()
        for _ in range(LOOKS):
            SEEN[names[-1]] = replicas
            directory.current  # noqa: B018
        after = min(after, (time.perf_counter() - began_s) / LOOKS)
    for name in names:
        SEEN.forget(name)
        CARDS.forget(name)
    return {"look_us": 1e6 * before, "changed_us": 1e6 * after}


def _replicas(name: str) -> tuple[Replica, ...]:
    return tuple(Replica(f"{name}-{index}", "http://127.0.0.1:9", "t") for index in range(REPLICAS))
