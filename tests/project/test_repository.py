"""The checkout as a whole: targets, layers, and nothing of one machine in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    *("help", "install", "lock", "serve", "stop", "test", "check"),
    *("bench", "bench-referee", "chaos", "image", "clean"),
)


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_make_alone_lists_every_target() -> None:
    listed = run("make")
    assert listed.returncode == 0, listed.stderr
    for target in TARGETS:
        assert re.search(rf"^  make {target} +\S", listed.stdout, re.M), target


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_planned(target: str) -> None:
    assert run("make", "--dry-run", target).returncode == 0


def test_serve_hands_the_port_and_the_configuration_to_the_stack() -> None:
    planned = run("make", "--dry-run", "serve", "PORT=9123", "CONFIG=my models.yaml").stdout
    assert 'exec .venv/bin/comptoir up "my models.yaml" --port "9123"' in planned


def test_the_licence_is_the_one_that_the_package_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert declared["license"] == "Apache-2.0"
    text = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert text.endswith("limitations under the License.")


def tracked_text() -> list[tuple[str, str]]:
    listed = run("git", "ls-files", "-z")
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            found.append((name, path.read_bytes().decode("utf-8", errors="ignore")))
    assert found
    return found


# Written in pieces, so that this file does not match itself.
MACHINE_PATHS = re.compile(
    r"(?<![\w./-])/(?:"
    + "|".join(("wo" + "rk", "ro" + "ot", "op" + "t", "home/[a-z]", "Users/[A-Za-z]"))
    + r")/"
)
INDEX_HOSTS = re.compile(
    r"https?://[\w.-]*(?:pypi|artifactory|nexus|pythonhosted|registry)[\w.-]*|extra-index"
    + r"-url|file:/{3}"
)


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        (name, m.group()) for name, text in tracked_text() for m in MACHINE_PATHS.finditer(text)
    ]
    assert found == []


def test_no_file_names_a_package_index_but_pytorchs_own() -> None:
    found = [(name, m.group()) for name, text in tracked_text() for m in INDEX_HOSTS.finditer(text)]
    assert found == []
    naming_pytorch = {name for name, text in tracked_text() if "download.pytorch" + ".org" in text}
    assert {name for name in naming_pytorch if not name.endswith((".md", ".py"))} == {
        "scripts/install.sh"
    }


GOOD = {
    "serving/discovery/directory_ray.py": "import ray.serve\n",
    "serving/telemetry/metrics_ray.py": "import ray\n",
    "serving/engine/model_server.py": "import ray.serve\nimport vllm\n",
    "serving/commands/stack/ray_api.py": "import ray\n",
    "serving/app.py": "import ray\nfrom serving import engine, gateway\n",
    "loadtests/run/folder.py": "from serving import errors\nimport loadtests.workload\n",
    "loadtests/simulation/policies.py": "import serving.replicas\n",
    "loadtests/checks/stack.py": "import serving.commands.stack\nimport loadtests.run\n",
}


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        (None, "", None),
        ("serving/settings.py", "from serving import catalogue\n", "Arrows point downward"),
        ("serving/unplaced.py", "", "Arrows point downward"),
        ("serving/engine/wrong.py", "import serving.gateway\n", "Arrows point downward"),
        ("serving/routing/wrong.py", "import serving.tenancy\n", "Arrows point downward"),
        ("serving/gateway/wrong.py", "from vllm import LLM\n", "Only the engine imports vllm"),
        ("serving/gateway/routes.py", "import ray\n", "Only the app, the engine"),
        ("serving/replicas/wrong.py", "import serving.routing\n", "Arrows point downward"),
        ("serving/admission/wrong.py", "import serving.replicas\n", "Arrows point downward"),
        ("serving/discovery/wrong.py", "import serving.replicas\n", "Arrows point downward"),
        (
            "serving/replicas/wrong.py",
            "from serving.discovery import replica_table\n",
            "Only discovery reads the table",
        ),
        (
            "serving/gateway/wrong.py",
            "from serving.discovery import directory_ray\n",
            "Only the gateway makes the directory",
        ),
        ("serving/routing/wrong.py", "def f():\n    import ray\n", "Only the app, the engine"),
        ("serving/engine_plan/wrong.py", "import serving.engine\n", "Arrows point downward"),
        ("serving/engine_plan/wrong.py", "import vllm\n", "Only the engine imports vllm"),
        ("serving/routing/wrong.py", "import loadtests\n", "Serving imports no load tests"),
        ("loadtests/unplaced.py", "", "Load tests: arrows point downward"),
        ("loadtests/run/wrong.py", "import loadtests.checks\n", "Load tests: arrows point"),
        ("loadtests/run/wrong.py", "import serving.gateway\n", "Load tests read configuration"),
        ("loadtests/simulation/wrong.py", "import serving.gateway\n", "Simulations play"),
        ("loadtests/checks/wrong.py", "import serving.trust\n", "Bench, checks and hostile"),
        ("loadtests/checks/wrong.py", "import vllm\n", "Only the engine imports vllm"),
        ("serving/engine_plan/wrong.py", "import ray\n", "Only the app, the engine"),
    ],
)
def test_the_layers_are_enforced(
    tmp_path: Path, file: str | None, text: str, complaint: str | None
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "import_contracts.py", tmp_path / "scripts")
    for package in (
        *("engine", "engine_plan", "gateway", "routing", "replicas", "admission", "discovery"),
        *("tenancy", "telemetry", "commands", "commands/stack"),
    ):
        (tmp_path / "serving" / package).mkdir(parents=True, exist_ok=True)
    for room in ("run", "workload", "simulation", "checks"):
        (tmp_path / "loadtests" / room).mkdir(parents=True, exist_ok=True)
    for name, content in {
        "serving/errors.py": "",
        "serving/records.py": "",
        "serving/discovery/replica_table.py": "",
        **GOOD,
        **({file: text} if file else {}),
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    for root in (tmp_path / "serving", tmp_path / "loadtests"):
        for folder in (root, *root.rglob("*")):
            if folder.is_dir():
                (folder / "__init__.py").touch()
    (tmp_path / "serving" / "catalogue.py").touch()
    linted = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", cwd=tmp_path)
    if complaint is None:
        assert linted.returncode == 0, linted.stdout
    else:
        assert linted.returncode == 1, linted.stdout
        assert re.search(rf"^{complaint}.* BROKEN$", linted.stdout, re.M), linted.stdout
