"""One start under everything that a machine can have against it, in a network that notes who is asked for.

A proxy in the environment, another `serving` in the working directory, a deep TMPDIR, a home that cannot be
written to; at the end, the foreground is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from serving.commands.stack import processes
from serving.own_package import PLACE

START_S = 400.0
# A busy machine is no failure: beside three hogs a start takes five minutes.
WAIT_S = 420.0
PORT = 8000
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
GATEWAY = {
    "name": "gateway",
    "route_prefix": None,
    "import_path": "serving.app:build_gateway",
    # On a busy machine an engine takes minutes to start.
    "args": {"admission": {"max_wait_s": WAIT_S}},
}
MODEL = {"name": "qwen3", "route_prefix": None, "import_path": "serving.app:build_model"}
ARGS = {"id": "qwen3", "catalogue": "tiny-qwen3", "device": "cpu", "replicas": {"min": 0}}

# Runs inside the network: starts, looks, asks, kills the foreground; says what it saw.
INSIDE = """
import os, signal, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path
command = [sys.executable, "-P", "-m", "serving.cli"]
log = Path("up.log")
up = subprocess.Popen([*command, "up", "my site.yaml", "--port", "8000"], stdout=log.open("wb"),
                      stderr=subprocess.STDOUT, start_new_session=True)
try:
    deadline = time.monotonic() + 400
    while "ready: " not in log.read_text() and up.poll() is None and time.monotonic() < deadline:
        time.sleep(0.3)
    print("STARTED", "ready: " in log.read_text())
    time.sleep(6)
    status = [*command, "status", "--port", "8000"]
    print("STATUS", subprocess.run(status, text=True, capture_output=True).stdout)
    body = b'{"model": "qwen3", "messages": [{"role": "user", "content": "Bonjour"}], "max_tokens": 4}'
    request = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions", data=body,
                                     headers={"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        response = direct.open(request, timeout=440)
    except urllib.error.HTTPError as error:
        print("REFUSED", error.read())
    else:
        print("ANSWERED", response.status)
finally:
    os.killpg(up.pid, signal.SIGKILL)
deadline = time.monotonic() + 60
while Path(os.environ["COMPTOIR_CACHE_DIR"], "run/8000/stack.json").exists() and time.monotonic() < deadline:
    time.sleep(0.2)
"""


def can_unshare() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    tried = ["unshare", "--user", "--map-root-user", "--net", "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.fixture
def deep() -> Iterator[Path]:
    """A folder whose path is too long for any socket."""
    folder = Path(tempfile.mkdtemp(prefix="comptoir-" + "x" * 90))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.timeout(START_S + WAIT_S + 140)
@pytest.mark.skipif(not can_unshare(), reason="needs unshare, ip, and networks of its own")
def test_a_start_asks_nobody_and_leaves_nothing_whatever_the_machine_is_like(
    tmp_path: Path, deep: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    site = {"proxy_location": "Disabled", "applications": [GATEWAY, MODEL | {"args": ARGS}]}
    (tmp_path / "my site.yaml").write_text(yaml.safe_dump(site))
    (tmp_path / "inside.py").write_text(INSIDE)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RAY_") and name.upper() != "NO_PROXY"
    }
    environment |= {
        **dict.fromkeys(PROXIES, "http://192.0.2.77:3128"),
        "HOME": str(home / "none"),
        "TMPDIR": str(deep),
        "PYTHONPATH": str(PLACE),
        "COMPTOIR_CACHE_DIR": str(tmp_path / "cache"),
        "COMPTOIR_DEVICE": "cpu",
    }
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--net"),
            *(sys.executable, "-P", "-m", "tests.stack.quiet_network", str(tmp_path / "asked")),
            *(sys.executable, "-P", str(tmp_path / "inside.py")),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S + WAIT_S + 120,
    )
    log = (tmp_path / "up.log").read_text()
    assert "STARTED True" in done.stdout, log[-4000:]
    # It sleeps from the start, and the first request wakes it.
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith(" qwen3"))
    assert row[2] == "-", done.stdout
    assert "ANSWERED 200" in done.stdout, done.stdout + done.stderr[-2000:] + log[-2000:]
    assert (tmp_path / "asked").read_text() == ""
    assert "serve deploy 'my site.yaml'" in log
    # The foreground was killed; the stack has stopped all the same.
    deadline = time.monotonic() + 30
    while processes.of_stack("none", PORT) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes.of_stack("none", PORT) == []
