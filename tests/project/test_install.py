"""scripts/install.sh decides rightly; a stand-in plays Python, pip and uv, so nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Plays `python -m venv DIR`, `python -m pip install`, `python scripts/pip_sources.py UV pip install` and
# `python -c CODE`. Every install goes to calls.log. One whose arguments
# contain FAILS fails and says SAYS, unless it names an index.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *'-m venv '*)
        mkdir -p .venv/bin
        cp "$0" .venv/bin/python
        cp "$0" .venv/bin/pip ;;
    *'pip install '*)
        echo "$*" >>"$CALLS"
        case "$*" in
            *--index-url*) ;;
            *"${FAILS:-no such word}"*) echo "error: ${SAYS:-}" >&2; exit 1 ;;
        esac
        case "$*" in *uv.txt) echo '#!/bin/sh' >.venv/bin/uv; chmod +x .venv/bin/uv ;; esac ;;
    *torch.version.cuda*) echo "${TORCH_BUILT_FOR:-cpu}" ;;
    *version_info*) exit "${TOO_OLD:-0}" ;;
esac
"""
NOT_FOUND = "No solution found when resolving dependencies"


@dataclass(frozen=True)
class Checkout:
    """A copy of the installer in an empty place, whose path has a space."""

    path: Path

    def install(self, what: str = "runtime", **env: str) -> subprocess.CompletedProcess[str]:
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("COMPTOIR_", "PIP_", "UV_"))
        }
        return subprocess.run(
            ["sh", "scripts/install.sh", what],
            cwd=self.path,
            env={
                **clean,
                "PATH": f"{self.path / 'bin'}:{clean['PATH']}",
                "CALLS": str(self.path / "calls.log"),
                "COMPTOIR_DEVICE": "cpu",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def installs(self) -> list[str]:
        """What pip and uv were asked to install since the last call of this."""
        log = self.path / "calls.log"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return calls

    @property
    def stamps(self) -> set[str]:
        return {path.name for path in (self.path / ".venv").glob("comptoir-[rd]*")}


def command(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    path = tmp_path / "a checkout"
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", path)
    (path / "bin").mkdir()
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        command(path / "bin", name, FAKE_PYTHON)
    for name in ("nvidia-smi", "uv"):
        command(path / "bin", name, "#!/bin/sh\nexit 9\n")
    return Checkout(path)


def test_installs_the_pinned_lists_without_their_dependencies(checkout: Checkout) -> None:
    done = checkout.install("dev")
    assert done.returncode == 0, done.stderr
    calls = checkout.installs()
    assert [call for call in calls if "-r requirements/cpu.txt" in call]
    assert [call for call in calls if "-r requirements/dev.txt" in call]
    assert [call for call in calls if "--editable ." in call]
    assert all("--no-deps" in call for call in calls)
    assert checkout.stamps == {"comptoir-runtime", "comptoir-dev"}


def test_serving_needs_no_development_tools(checkout: Checkout) -> None:
    assert checkout.install("runtime").returncode == 0
    assert not [call for call in checkout.installs() if "dev.txt" in call]
    assert checkout.stamps == {"comptoir-runtime"}


def test_a_second_run_does_nothing(checkout: Checkout) -> None:
    checkout.install("dev")
    checkout.installs()
    assert checkout.install("dev").returncode == 0
    assert checkout.install("runtime").returncode == 0
    assert checkout.installs() == []


@pytest.mark.parametrize(
    ("changed", "reinstalled"), [("cpu.txt", True), ("dev.txt", False), ("gpu.txt", False)]
)
def test_the_runtime_is_installed_again_when_its_list_changes(
    checkout: Checkout, changed: str, reinstalled: bool
) -> None:
    checkout.install("runtime")
    checkout.installs()
    with (checkout.path / "requirements" / changed).open("a") as file:
        file.write("extra==1.0\n")
    checkout.install("runtime")
    assert bool(checkout.installs()) is reinstalled


@pytest.mark.parametrize("failing", ["torch==", "cpu.txt", "--editable"])
def test_a_failed_install_leaves_no_stamp_and_the_next_one_recovers(
    checkout: Checkout, failing: str
) -> None:
    checkout.install("runtime")
    (checkout.path / "pyproject.toml").write_text("# changed\n")
    failed = checkout.install("dev", FAILS=failing, SAYS="disk full")
    assert failed.returncode != 0
    assert "disk full" in failed.stderr
    assert checkout.stamps == set()
    assert checkout.install("dev").returncode == 0
    assert checkout.stamps == {"comptoir-runtime", "comptoir-dev"}


def test_torch_comes_from_the_configured_sources_where_they_have_it(checkout: Checkout) -> None:
    checkout.install()
    assert not [call for call in checkout.installs() if "--index-url" in call]


def test_torch_comes_from_the_public_cpu_index_where_they_do_not(checkout: Checkout) -> None:
    done = checkout.install(FAILS="torch==", SAYS=NOT_FOUND)
    assert done.returncode == 0, done.stderr
    assert "taking it from https://download.pytorch.org/whl/cpu" in done.stderr
    (call,) = [call for call in checkout.installs() if "--index-url" in call]
    assert call.endswith("--index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu")


def test_another_failure_does_not_send_uv_elsewhere(checkout: Checkout) -> None:
    done = checkout.install(FAILS="torch==", SAYS="connection reset")
    assert done.returncode != 0
    assert not [call for call in checkout.installs() if "--index-url" in call]


def test_a_gpu_is_found_by_nvidia_smi(checkout: Checkout) -> None:
    command(checkout.path / "bin", "nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA'\n")
    done = checkout.install(COMPTOIR_DEVICE="", TORCH_BUILT_FOR="gpu")
    assert done.returncode == 0, done.stderr
    assert [call for call in checkout.installs() if "-r requirements/gpu.txt" in call]


def test_no_gpu_means_the_cpu(checkout: Checkout) -> None:
    assert checkout.install(COMPTOIR_DEVICE="").returncode == 0
    assert [call for call in checkout.installs() if "-r requirements/cpu.txt" in call]


def test_a_cpu_torch_on_a_gpu_machine_is_refused(checkout: Checkout) -> None:
    done = checkout.install(COMPTOIR_DEVICE="gpu", TORCH_BUILT_FOR="cpu")
    assert done.returncode != 0
    assert "wanted torch for the gpu" in done.stderr
    assert checkout.stamps == set()


def test_another_device_means_another_environment(checkout: Checkout) -> None:
    checkout.install()
    (checkout.path / ".venv" / "left-over").touch()
    checkout.install(COMPTOIR_DEVICE="gpu", TORCH_BUILT_FOR="gpu")
    assert not (checkout.path / ".venv" / "left-over").exists()


def test_a_moved_checkout_gets_another_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.install()
    (checkout.path / ".venv" / "left-over").touch()
    moved = Checkout(checkout.path.rename(tmp_path / "moved"))
    assert moved.install().returncode == 0
    assert not (moved.path / ".venv" / "left-over").exists()


def test_a_wrong_device_is_named(checkout: Checkout) -> None:
    done = checkout.install(COMPTOIR_DEVICE="tpu")
    assert done.returncode != 0
    assert "COMPTOIR_DEVICE is 'tpu': use cpu or gpu" in done.stderr
    assert checkout.installs() == []


def test_too_old_a_python_is_refused_by_name(checkout: Checkout) -> None:
    done = checkout.install(TOO_OLD="1")
    assert done.returncode != 0
    assert "no Python 3.11 or later" in done.stderr
    assert not (checkout.path / ".venv").exists()


def test_a_machine_without_uv_gets_the_pinned_one(checkout: Checkout) -> None:
    assert checkout.install("dev").returncode == 0
    first, *others = checkout.installs()
    assert first.startswith("-m pip install")
    assert first.endswith("-r requirements/uv.txt")
    assert all(call.startswith("scripts/pip_sources.py .venv/bin/uv pip") for call in others)


def test_the_uv_of_the_machine_is_used(checkout: Checkout) -> None:
    command(checkout.path / "bin", "uv", "#!/bin/sh\n")
    assert checkout.install("dev").returncode == 0
    calls = checkout.installs()
    assert calls
    assert all(call.startswith("scripts/pip_sources.py uv pip") for call in calls)


def test_each_step_says_what_it_does_and_how_long_that_takes(checkout: Checkout) -> None:
    said = checkout.install("dev").stderr
    assert "creating .venv with python3.11 for the cpu" in said
    assert "installing the runtime for the cpu, about 200 packages" in said
    assert "installing the test and check tools" in said
    assert len([line for line in said.splitlines() if line.startswith("install: done in ")]) == 2
