"""Which tests share a process where several run at once (`pytest -n auto`), and in which order they begin.

A file is one unit of work, and files that share something dear (a stack, engines) are one together. Unit
tests come first; then what takes longest, so that no worker is left alone with it at the end.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

# Beginnings of paths; the unit of work that takes longest first. Everything else is cheap.
DEAR: dict[str, tuple[str, ...]] = {
    "the local stack": ("tests/stack/local/",),
    "engines": ("tests/engine/real/",),
    "load runs": ("tests/loadtests/commands/test_load_run",),
    "rollouts": ("tests/stack/test_rollout",),
    "handover": ("tests/engine/test_handover_ray",),
    "prometheus": ("tests/monitoring/test_alerts", "tests/monitoring/test_prometheus"),
    "groups": ("tests/engine/test_group",),
    "changes of the gateway": ("tests/stack/test_gateway",),
    "edges": ("tests/stack/test_edges",),
    "parity": ("tests/engine/test_parity",),
    "vllm": (
        "tests/catalogue/test_against_vllm",
        "tests/engine_plan/test_arguments",
        "tests/engine/test_internals",
        "tests/engine/test_json_schemas",
        "tests/engine/test_large_models",
        "tests/engine/test_metered_engine",
        "tests/engine/test_quiet",
        "tests/engine/test_stream_errors",
    ),
    "hostile clients": ("tests/loadtests/hostile/test_hostile",),
    "requests from the description": ("tests/gateway/test_schemathesis",),
    "proxies": ("tests/gateway/test_behind_proxies", "tests/gateway/test_leaving"),
    "browser": ("tests/loadtests/report/test_report_browser",),
    # Importing it takes 10 s.
    "transformers": ("tests/catalogue/tiny/test_tokenizer", "tests/catalogue/tiny/test_weights"),
    "two nodes": ("tests/cluster/test_two_nodes",),
}
# A worker may have a stack with three engines.
MEMORY_EACH = 6 * 2**30


def unit_of_work(nodeid: str) -> str:
    """The name of what this test shares a process with."""
    path = nodeid.partition("::")[0]
    found = (name for name, starts in DEAR.items() if path.startswith(starts))
    return next(found, path)


def place(nodeid: str) -> int:
    """Where its unit of work stands in the order: 0 for all that are cheap."""
    names = ["", *DEAR]
    name = unit_of_work(nodeid)
    return names.index(name) if name in DEAR else 0


class Scheduling(LoadScopeScheduling):
    """Gives each worker a whole unit of work, in the order of collection."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        # Otherwise: those with most tests first.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of_work(nodeid)


def how_many() -> int:
    """For `-n auto`: as many as cores; engines that start beside one another take each other's time."""
    fitting = psutil.virtual_memory().total // MEMORY_EACH
    return max(1, min(len(os.sched_getaffinity(0)), fitting))
