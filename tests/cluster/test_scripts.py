"""The scripts say what they would do, refuse what cannot work, and are what the page and the units say."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.nodes import BIN, ROOT, SCRIPTS

PAGE = (ROOT / "docs" / "bare-metal.md").read_text(encoding="utf-8")
COMMON = (SCRIPTS / "common.sh").read_text(encoding="utf-8")
UNITS = sorted((SCRIPTS / "systemd").glob("*.service"))
NAMES = ("head.sh", "worker.sh", "drain.sh")
OWN = ("--ip", "127.0.0.1")
JOIN = ("--head", "10.0.0.1:6379")


def run(name: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / name), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"} | env,
    )


@pytest.fixture
def token(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("t" * 32)
    return "--token-file", str(path)


def options_of(name: str) -> set[str]:
    """The options that a script takes, as its code says."""
    cases = (SCRIPTS / name).read_text().partition("\nwhile ")[2].partition("\ndone\n")[0]
    return set(re.findall(r"--[a-z-]+[a-z]", cases))


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_an_example_and_every_option(name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0
    assert f"  {name} --" in shown.stdout
    missing = options_of(name) - {"--help"} - set(re.findall(r"--[a-z-]+[a-z]", shown.stdout))
    assert not missing


def test_the_head_starts_with_fixed_ports_and_a_dashboard_of_its_own(
    token: tuple[str, str],
) -> None:
    said = run("head.sh", *OWN, *token, "--dry-run", "--gateways", "2", "--resource", "large=3")
    words = said.stdout.splitlines()
    assert said.returncode == 0, said.stderr
    assert words[:3] == ["ray", "start", "--head"]
    assert {"--port=6379", "--dashboard-host=127.0.0.1", "--block"} <= set(words)
    assert '--resources={"comptoir_gateway": 2, "large": 3}' in words
    assert "--node-ip-address=127.0.0.1" in words
    assert not [word for word in words if word.startswith(("--num-cpus", "--num-gpus"))]


def test_a_worker_joins_its_head_with_what_it_was_told(token: tuple[str, str]) -> None:
    said = run("worker.sh", *JOIN, *OWN, *token, "--dry-run", "--cpus", "4", "--", "--verbose")
    words = said.stdout.splitlines()
    assert words[:3] == ["ray", "start", "--address=10.0.0.1:6379"]
    assert "--num-cpus=4" in words
    assert words[-1] == "--verbose"


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("head.sh", (), "--ip: is required"),
        ("head.sh", ("--ip", "192.0.2.1"), "no address of this machine"),
        # A dot is a dot.
        ("head.sh", ("--ip", "127x0.0.1"), "no address of this machine"),
        ("head.sh", ("--ip",), "needs a value"),
        ("head.sh", (*OWN, "--port", "x"), "'x' is not a whole number"),
        ("head.sh", (*OWN, "--node-timeout", "2"), "too short"),
        ("head.sh", (*OWN, "--resource", "a"), "not NAME=NUMBER"),
        ("worker.sh", (*OWN, "--resource", "a b=1"), "not NAME=NUMBER"),
        ("worker.sh", OWN, "--head: is required"),
        ("worker.sh", (*OWN, "--head", "10.0.0.1"), "as HOST:PORT"),
        ("worker.sh", (*OWN, "--nodes", "3"), "unknown option"),
        ("drain.sh", (), "--head: is required"),
        ("worker.sh", (*JOIN, *OWN), "there is no token"),
        ("worker.sh", (*JOIN, *OWN, "--venv", "/nonexistent"), "make install"),
    ],
)
def test_what_cannot_work_is_refused_with_a_way_out(
    name: str, options: tuple[str, ...], complaint: str
) -> None:
    said = run(name, *options)
    assert said.returncode == 2
    assert complaint in said.stderr
    assert said.stderr.startswith(f"{name}: ")


def test_a_token_that_others_can_read_is_refused(token: tuple[str, str]) -> None:
    Path(token[1]).chmod(0o644)
    assert "others can read" in run("head.sh", *OWN, *token, "--dry-run").stderr


def wait_for(times: int, starts: Path, script: subprocess.Popen[str]) -> bool:
    """Whether so many starts are noted before long."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if starts.exists() and starts.read_text().count("once") >= times:
            return True
        if script.poll() is not None:
            break
        time.sleep(0.05)
    return starts.exists() and starts.read_text().count("once") >= times


def test_restart_starts_again_what_has_ended(token: tuple[str, str], tmp_path: Path) -> None:
    ended = tmp_path / "bin"
    ended.mkdir()
    for name, text in {
        "comptoir": "echo true",
        "ray": f"echo once >>{tmp_path}/starts; exit 3",
        "sleep": "exec /bin/sleep 0.1",
    }.items():
        (ended / name).write_text(f"#!/bin/sh\n{text}\n")
        (ended / name).chmod(0o755)
    command = [str(SCRIPTS / "worker.sh"), *JOIN, *OWN, *token, "--venv", str(tmp_path)]
    for restart, times in (((), 1), (("--restart",), 3)):
        (tmp_path / "starts").unlink(missing_ok=True)
        with subprocess.Popen([*command, *restart], stderr=subprocess.PIPE, text=True) as script:
            assert script.stderr is not None
            try:
                assert wait_for(times, tmp_path / "starts", script)
                script.terminate()
                assert script.wait(timeout=10) == (0 if restart else 3)
            finally:
                script.kill()
            if restart:
                assert "Ray ended with 3" in script.stderr.read()


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_its_script_as_it_can_be_started_and_for_ever(unit: Path) -> None:
    text = unit.read_text()
    start = re.search(r"^ExecStart=/srv/comptoir/scripts/cluster/(\S+) (.*)$", text, re.M)
    assert start is not None
    assert set(re.findall(r"--[a-z-]+", start[2])) <= options_of(start[1])
    for line in ("Restart=always", "StartLimitIntervalSec=0", "KillMode=control-group"):
        assert f"\n{line}\n" in text
    assert f"scripts/cluster/systemd/{unit.name}" in PAGE


def test_the_page_names_every_port_and_every_option() -> None:
    ports = {int(port) for port in re.findall(r"^[A-Z_]+_PORT=(\d+)$", COMMON, re.M)}
    assert len(ports) >= 8
    for port in (*ports, 6379, 8265, 8000):
        assert re.search(rf"\b{port}\b", PAGE), port
    for option in re.findall(r"(?:head|worker|drain)\.sh`? (--[a-z-]+[a-z])", PAGE):
        assert option in set.union(*(options_of(name) for name in NAMES)), option


def test_the_environment_is_the_one_that_comptoir_prints() -> None:
    printed = subprocess.run(
        [str(BIN / "comptoir"), "env"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "export RAY_AUTH_MODE=token" in printed
    assert '"$bin/comptoir" env' in COMMON
