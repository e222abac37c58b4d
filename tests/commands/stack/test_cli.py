"""What surrounds a local stack: its note on disk, its processes, and what is refused before it starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.stack import processes, progress_view, ray_api
from serving.commands.stack.state import StackState
from serving.deployment_file import load_deployment_file
from serving.errors import ComptoirError, LicenceError, StackError
from serving.settings import ProcessSettings

LOCAL = Path(__file__).parents[3] / "deployments" / "local.yaml"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPTOIR_CACHE_DIR", str(tmp_path))
    return tmp_path


def state(port: int = 8123, **changes: Any) -> StackState:
    fields: dict[str, Any] = {
        "stack_id": "a1",
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
        "host": "127.0.0.1",
        "port": port,
        "dashboard": "http://127.0.0.1:1",
        "config": "site.yaml",
    }
    return StackState(**fields | changes)


# ---- the note ----------------------------------------------------------------------------------------


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    state().write(tmp_path)
    assert StackState.read(tmp_path, 8123) == state()
    assert [one.port for one in StackState.all(tmp_path)] == [8123]
    state().remove(tmp_path)
    state().remove(tmp_path)
    assert StackState.read(tmp_path, 8123) is None
    assert StackState.all(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"port": 1}', "null"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, content: str) -> None:
    folder = StackState.directory(tmp_path, 8123)
    folder.mkdir(parents=True)
    (folder / "stack.json").write_text(content)
    (tmp_path / "run" / "other").mkdir()
    assert StackState.all(tmp_path) == []


def test_a_stack_is_alive_while_the_very_process_runs() -> None:
    assert state().is_alive
    # The same number, another process.
    assert not state(created=1.0).is_alive
    assert not state(pid=2**22 - 1).is_alive


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123"),
        ("0.0.0.0", "http://127.0.0.1:8123"),
        ("::", "http://127.0.0.1:8123"),
        ("::1", "http://[::1]:8123"),
        ("10.0.0.7", "http://10.0.0.7:8123"),
    ],
)
def test_this_machine_reaches_the_endpoint_there(host: str, url: str) -> None:
    assert state(host=host).base_url == url


# ---- its processes -----------------------------------------------------------------------------------


# Of this run alone: another one on this machine looks for its own, and ends them.
MINE, OTHER, DEAF = (f"{name}-{os.getpid()}" for name in ("mine", "other", "deaf"))


@pytest.fixture
def member() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        env=os.environ | {processes.STACK_VARIABLE: MINE},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_a_process_with_the_stacks_value_belongs_to_it_and_others_do_not(
    member: subprocess.Popen[bytes],
) -> None:
    assert [one.pid for one in processes.of_stack(MINE, 8123)] == [member.pid]
    assert processes.of_stack(OTHER, 8123) == []
    assert processes.resident_bytes(MINE, 8123) > 2**20


def test_ending_a_stack_ends_its_processes_only(member: subprocess.Popen[bytes]) -> None:
    assert processes.end_all(OTHER, 8123) == 0
    assert member.poll() is None
    assert processes.end_all(MINE, 8123) == 1
    assert not psutil.pid_exists(member.pid)


def test_a_process_that_ignores_the_request_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {processes.STACK_VARIABLE: DEAF},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert processes.end_all(DEAF, 8123, grace_s=0.1) == 1
    assert not psutil.pid_exists(child.pid)
    child.stdout.close()
    child.wait()


@pytest.mark.parametrize("folder", ["/tmp", "/scratch", "/home/" + "x" * 200])
def test_rays_socket_paths_stay_short_whatever_tmpdir_is(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", folder)
    root = processes.session_root(65535)
    assert root.parent == Path(folder if len(folder) < 10 else "/tmp")
    # Linux takes 107 bytes.
    longest = "session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead"
    assert len(str(root / "ray" / longest)) <= 107


def test_without_a_short_folder_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/home/" + "x" * 200)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StackError, match="set TMPDIR to a shorter folder, such as /tmp"):
        processes.session_root(8000)


def test_a_process_is_found_by_its_open_file_whatever_tmpdir_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / f"comptoir-{os.getuid()}-8123" / "ray"
    there.mkdir(parents=True)
    with (there / "log").open("w") as log, subprocess.Popen(["sleep", "60"], stdout=log) as child:
        monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
        found = [one.pid for one in processes.of_stack("none", 8123)]
        child.kill()
    assert found == [child.pid]


# ---- up and down, without Ray ------------------------------------------------------------------------


def up(*words: str) -> ComptoirError:
    result = CliRunner().invoke(app, ["up", *words])
    assert isinstance(result.exception, ComptoirError), result.output
    return result.exception


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("Ray must not start")

    monkeypatch.setattr(ray_api, "start_ray", fail)


@pytest.mark.usefixtures("cache", "no_ray")
def test_a_port_that_another_program_has_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = up(str(LOCAL), "--port", str(port))
    assert isinstance(error, StackError)
    assert str(port) in error.message


@pytest.mark.usefixtures("no_ray")
def test_a_second_stack_on_the_port_is_refused_with_what_to_do(cache: Path) -> None:
    state(8124).write(cache)
    error = up(str(LOCAL), "--port", "8124")
    assert "comptoir down --port 8124" in error.message


@pytest.mark.usefixtures("cache", "no_ray")
def test_a_forbidden_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    document = yaml.safe_load(LOCAL.read_text())
    document["applications"][1]["args"]["catalogue"] = "hunyuan-7b-instruct"
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(document))
    assert isinstance(up(str(path), "--port", "8125"), LicenceError)


def test_down_without_a_stack_is_no_failure(cache: Path) -> None:
    result = CliRunner().invoke(app, ["down", "--port", "8126"])
    assert (result.exit_code, result.output) == (0, "no stack is running on port 8126\n")


def test_down_cleans_up_after_a_stack_whose_process_is_gone(cache: Path) -> None:
    state(8127, created=1.0, stack_id="gone").write(cache)
    result = CliRunner().invoke(app, ["down"])
    assert "stopped the stack on port 8127" in result.output
    assert StackState.all(cache) == []


# ---- waiting until it is ready -----------------------------------------------------------------------


ALL = {"qwen3", "deepseek-v3", "qwen3-embedding"}


@dataclass
class Starting:
    """What Serve and the gateway's /ready say while a stack starts; of `ready` one entry a look."""

    port: int = 0
    applications: dict[str, Any] = field(default_factory=dict)
    ready: list[set[str]] = field(default_factory=lambda: [set()])

    def answer(self) -> tuple[int, bytes]:
        now = self.ready.pop(0) if len(self.ready) > 1 else self.ready[0]
        models = {name: "ready" if name in now else "starting" for name in ALL}
        body = {"ready": now == ALL, "models": models}
        return 200 if now == ALL else 503, json.dumps(body).encode()


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Starting]:
    told = Starting()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = told.answer()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(ray_api, "applications", lambda _: told.applications)
    monkeypatch.setattr(progress_view, "POLL_S", 0.01)
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def wait(
    starting: Starting,
    folder: Path,
    stop: threading.Event | None = None,
    timeout_s: float = 5.0,
) -> None:
    file = load_deployment_file(LOCAL, ProcessSettings())
    progress_view.wait_until_ready(
        file, state(starting.port), folder, stop or threading.Event(), timeout_s
    )


def test_it_waits_until_every_model_answers(starting: Starting, tmp_path: Path) -> None:
    starting.ready = [set(), {"qwen3"}, ALL]
    wait(starting, tmp_path)
    assert starting.ready == [ALL]


def test_a_model_that_cannot_start_ends_the_wait_with_its_reason(
    starting: Starting, tmp_path: Path
) -> None:
    starting.applications = {
        "qwen3": {
            "status": "DEPLOY_FAILED",
            "message": "Traceback\n  File x\nValueError: the telling line\n\n",
        }
    }
    with pytest.raises(StackError, match="qwen3 cannot be started: ValueError: the telling line"):
        wait(starting, tmp_path)


def test_the_models_that_are_late_are_named(starting: Starting, tmp_path: Path) -> None:
    starting.ready = [{"qwen3"}]
    with pytest.raises(StackError) as raised:
        wait(starting, tmp_path, timeout_s=0.05)
    assert "deepseek-v3 (starting), qwen3-embedding (starting)" in raised.value.message
    assert "qwen3 (" not in raised.value.message.replace("qwen3-embedding", "")


def test_a_log_shows_that_a_long_start_goes_on(
    starting: Starting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress_view, "QUIET_S", 0.02)
    starting.ready = [{"qwen3"}]
    with pytest.raises(StackError):
        wait(starting, tmp_path, timeout_s=0.5)
    shown = " ".join(capsys.readouterr().err.split())
    assert "still waiting for deepseek-v3 (starting), qwen3-embedding (starting)" in shown
    assert shown.count("still waiting") > 1


def test_a_stop_ends_the_wait_quietly(starting: Starting, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    wait(starting, tmp_path, stop)
