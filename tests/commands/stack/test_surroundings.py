"""What surrounds Ray: its token, its environment, and the hook by which its dashboard asks nobody."""

from __future__ import annotations

import inspect
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ray._common.usage import usage_lib
from ray._private import services

from serving.commands.stack import ray_api
from serving.commands.stack.surroundings import have_token, quiet_dashboard, surroundings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


# ---- the token ---------------------------------------------------------------------------------------


def test_the_token_is_made_for_nobody_else_to_read(home: Path, tmp_path: Path) -> None:
    have_token(tmp_path)
    token = home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert ray_api.authorization() == {"Authorization": f"Bearer {token.read_text()}"}
    assert len(token.read_text()) == 64
    before = token.read_text()
    token.chmod(0o644)
    os.environ["RAY_AUTH_TOKEN_PATH"] = ""
    have_token(tmp_path)
    assert (token.read_text(), token.stat().st_mode & 0o777) == (before, 0o600)


def test_a_token_that_is_given_is_taken(home: Path, tmp_path: Path) -> None:
    os.environ["RAY_AUTH_TOKEN"] = "mine"
    have_token(tmp_path)
    assert not (home / ".ray").exists()


@pytest.mark.parametrize("reason", ["no home", "a home that cannot be written to"])
def test_without_a_usable_home_the_token_lies_beside_the_logs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def nowhere() -> Path:
        if reason == "no home":
            raise RuntimeError
        return Path("/proc/nowhere")

    monkeypatch.setattr(Path, "home", nowhere)
    have_token(tmp_path)
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "auth_token")
    assert ray_api.authorization()


# ---- the environment ---------------------------------------------------------------------------------


def test_no_process_of_the_stack_asks_a_proxy_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "corp.example")
    found = surroundings(tmp_path)
    names = found["NO_PROXY"].split(",")
    assert {"corp.example", "127.0.0.1", "localhost", "::1"} <= set(names)
    assert found["no_proxy"] == found["NO_PROXY"]
    assert "TMPDIR" not in found


def test_a_folder_too_deep_for_any_socket_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 80)
    assert surroundings(tmp_path)["TMPDIR"] == str(tmp_path)


def test_a_user_without_a_name_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    for name in ("USER", "HOME"):
        monkeypatch.delenv(name, raising=False)
    found = surroundings(tmp_path)
    assert found["USER"] == found["LOGNAME"] == "uid3999999999"
    assert found["HOME"] == str(tmp_path)


# ---- the dashboard -----------------------------------------------------------------------------------


def started(session: Path, monkeypatch: pytest.MonkeyPatch, process_type: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    monkeypatch.setattr(services, "start_ray_process", lambda *_, **kwargs: given.update(kwargs))
    with quiet_dashboard(session):
        services.start_ray_process(["x"], process_type, fate_share=True)
    return given


def test_the_dashboard_has_a_home_that_answers_for_the_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = started(tmp_path, monkeypatch, "dashboard")
    home = Path(given["env_updates"]["HOME"])
    assert "cwd" not in given
    asked: list[str] = []
    monkeypatch.setattr(usage_lib.requests, "get", lambda url, **_: asked.append(url))
    usage_lib.get_cluster_config_to_report(str(home / "ray_bootstrap_config.yaml"))
    assert asked == []
    usage_lib.get_cluster_config_to_report(str(tmp_path / "none"))
    assert asked, "Ray has changed: it no longer asks, and the home is not needed"


def test_where_another_serving_lies_the_dashboard_starts_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "serving.py").touch()
    monkeypatch.chdir(tmp_path)
    session = tmp_path / "session"
    session.mkdir()
    assert started(session, monkeypatch, "dashboard")["cwd"] == str(session / "home")


def test_other_processes_of_ray_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(tmp_path, monkeypatch, "raylet") == {"fate_share": True}


def test_rays_hook_is_where_it_was() -> None:
    parameters = inspect.signature(services.start_ray_process).parameters
    assert {"command", "process_type", "env_updates", "cwd"} <= set(parameters)
    assert "start_ray_process(" in inspect.getsource(services.start_api_server)
