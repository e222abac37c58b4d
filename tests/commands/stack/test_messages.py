"""What `comptoir up` says: what it will do, and what can be typed as it stands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from serving.commands.stack import messages
from serving.commands.stack.state import StackState
from serving.deployment_file import DeploymentFile, load_deployment_file
from serving.settings import ProcessSettings

DEPLOYMENTS = Path(__file__).parents[3] / "deployments"


def deployment(name: str) -> DeploymentFile:
    return load_deployment_file(DEPLOYMENTS / name, ProcessSettings())


def ready(capsys: pytest.CaptureFixture[str], name: str = "local.yaml", **how: bool) -> str:
    state = StackState(
        *("a1", os.getpid(), psutil.Process().create_time(), "127.0.0.1", 8123),
        *("http://127.0.0.1:1", "site.yaml"),
    )
    messages.announce_ready(deployment(name), state, 12.3, **how)
    return capsys.readouterr().out


def test_the_announcement_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ready(capsys)
    assert "http://127.0.0.1:8123/v1" in shown
    assert 'OpenAI(base_url="http://127.0.0.1:8123/v1", api_key="none")' in shown
    assert '"model": "qwen3"' in shown
    assert "comptoir chat qwen3" in shown
    assert "RAY_AUTH_MODE=token RAY_DASHBOARD_ADDRESS=" in shown


def test_a_real_model_is_offered_where_it_can_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    offer = f"make serve CONFIG={DEPLOYMENTS / 'laptop.yaml'}"
    assert offer in ready(capsys, reaches_hub=True)
    assert "CONFIG=" not in ready(capsys)
    assert "CONFIG=" not in ready(capsys, "laptop.yaml", reaches_hub=True)


@pytest.mark.parametrize(
    ("name", "models", "time"),
    [("local.yaml", "3 models", "half a minute"), ("laptop.yaml", "1 model,", "download")],
)
def test_the_steps_and_their_times_are_told_before_they_begin(
    capsys: pytest.CaptureFixture[str], name: str, models: str, time: str
) -> None:
    messages.announce_steps(deployment(name))
    said = capsys.readouterr().err
    assert "step 1 of 2 starts Ray, about 5 s" in said
    assert models in said
    assert time in said


def test_rays_command_is_named_as_it_can_be_typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "serve").touch(mode=0o700)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert messages.as_typed("serve") == ".venv/bin/serve"
    monkeypatch.chdir(Path(__file__).parent)
    assert messages.as_typed("serve") == str(folder / "serve")
    monkeypatch.setenv("PATH", str(folder))
    assert messages.as_typed("serve") == "serve"
