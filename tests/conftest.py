"""What every test run shares: a fixed environment, and cheap tests first."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import subprocess
from typing import Any

import pytest
import typer.testing
from hypothesis import HealthCheck, settings

from tests import workers

# Before anything imports ray, vllm or torch, which read these once.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
    }
)
# Several engines on a small machine fight for its cores otherwise, and compiling costs 20 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# Ray's workers get less of the machine than everything else: what is tested would wait for its tests.
os.environ.setdefault("RAY_worker_niceness", "0")
# Each HTTP client reads a whole bundle of certificates, 40 ms; of a folder it reads what it needs.
os.environ.pop("SSL_CERT_FILE", None)
os.environ.setdefault("SSL_CERT_DIR", "/etc/ssl/certs")
# A developer's own settings must not decide whether a test passes.
for _name in [name for name in os.environ if name.startswith("COMPTOIR_")]:
    del os.environ[_name]
# rich reads a console's width when it makes the console: the test that imported it first, with a width
# of its own, would set that of all tests after it.
os.environ.pop("COLUMNS", None)
importlib.import_module("serving.commands.output")
# A command is built from its functions' signatures, 30 ms, anew for each that a test runs.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]

# A busy machine takes its time, and no run draws what the one before did not: a failure is somebody's doing.
# New examples are looked for with `pytest --hypothesis-profile=search`.
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("steady", settings.get_profile("search"), derandomize=True)
settings.load_profile("steady")

# Cheapest first, so that failures come early; a test with none of these marks is a unit test.
_ORDER = ("services", "ray", "engine", "browser", "gpu")


def _cost(item: pytest.Item) -> int:
    return max(
        (_ORDER.index(m.name) + 1 for m in item.iter_markers() if m.name in _ORDER), default=0
    )


def _has_gpu() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many `-n auto` starts."""
    return workers.how_many()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.Scheduling:
    """What `-n` is given instead of a `--dist` of its own."""
    return workers.Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: (workers.place(item.nodeid), _cost(item)))
    else:
        items.sort(key=_cost)
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
