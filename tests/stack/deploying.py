"""What tests do to a running stack: deploy a file to it, and wait for what follows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from serving.environment import cluster_environment
from tests.stack.conftest import ROOT, Stack


def deploy(stack: Stack, document: dict[str, Any], folder: Path) -> None:
    """What an operator does: `serve deploy FILE`."""
    path = folder / "deploy.yaml"
    path.write_text(yaml.safe_dump(document))
    env = os.environ | cluster_environment() | {"RAY_DASHBOARD_ADDRESS": stack.state.dashboard}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("serve")), "deploy", str(path)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def eventually(check: Any, timeout_s: float) -> float:
    """Wait until `check()` is true; returns the seconds it took."""
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < timeout_s, "it did not happen in time"
        time.sleep(0.1)
    return time.monotonic() - began
