"""`comptoir status`: finds the endpoint, asks it, shows its models."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.stack.state import StackState
from serving.errors import ConfigError, StackError

REPLICA = {"id": "r1", "running": 3.0, "waiting": 1.0, "kv_cache_use": 0.25, "tokens_per_s": 81.5}
BODY = {
    "models": [
        {"id": "m", "state": "ready", "replicas": [REPLICA]},
        {"id": "asleep", "state": "idle", "replicas": []},
    ]
}


@dataclass
class Endpoint:
    """An endpoint that answers what it is told."""

    url: str = ""
    port: int = 0
    status: int = 200
    body: bytes = json.dumps(BODY).encode()
    raw: bytes | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    told = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.seen.append({"path": self.path} | dict(self.headers))
            if told.raw is not None:
                self.wfile.write(told.raw)
                return
            self.send_response(told.status)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: Any) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_port
    told.url = f"http://127.0.0.1:{told.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPTOIR_CACHE_DIR", str(tmp_path))
    return tmp_path


def status(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["status", *words], env={"COLUMNS": "200"} | environment)


def failure(*words: str) -> str:
    result = status(*words)
    assert isinstance(result.exception, StackError), result.output
    return result.exception.message


def note(cache: Path, port: int, pid: int | None = None) -> None:
    created = psutil.Process().create_time()
    state = StackState("id", pid or os.getpid(), created, "127.0.0.1", port, "", "site.yaml")
    state.write(cache)


def test_every_model_is_shown_with_its_replicas_load(endpoint: Endpoint) -> None:
    result = status("--url", endpoint.url)
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    assert rows["m"] == ["m", "ready", "r1", "3", "1", "25.0", "%", "81.5"]
    assert rows["asleep"][:3] == ["asleep", "idle", "-"]


def test_scripts_get_json(endpoint: Endpoint) -> None:
    assert json.loads(status("--url", endpoint.url, "--json").stdout) == BODY


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_an_openai_base_url_will_do(endpoint: Endpoint, suffix: str) -> None:
    assert status("--url", endpoint.url + suffix).exit_code == 0
    assert endpoint.seen[0]["path"] == "/status"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_key_is_sent_and_not_shown(endpoint: Endpoint, how: str) -> None:
    words = ("--key", "sk-a") if how == "option" else ()
    environment = {} if how == "option" else {"COMPTOIR_API_KEY": "sk-a"}
    result = status("--url", endpoint.url, *words, **environment)
    assert endpoint.seen[0]["Authorization"] == "Bearer sk-a"
    assert "sk-a" not in result.output


def test_an_endpoint_that_wants_a_key_says_how_to_give_it(endpoint: Endpoint) -> None:
    endpoint.status = 401
    assert "COMPTOIR_API_KEY" in failure("--url", endpoint.url)


def test_a_key_that_is_not_known_is_not_called_missing(endpoint: Endpoint) -> None:
    endpoint.status = 401
    assert "the endpoint does not know this key" in failure("--url", endpoint.url, "--key", "sk-b")
    assert "an API key is required" in failure("--url", endpoint.url)


def test_settings_that_were_refused_are_told(endpoint: Endpoint) -> None:
    settings = {"keys": 2, "refused": {"keys_file": "keys_file[0]: hash: is required"}}
    endpoint.body = json.dumps(BODY | {"settings": settings}).encode()
    result = status("--url", endpoint.url)
    assert result.exit_code == 0
    assert "keys_file was refused" in result.output
    assert "keys_file[0]: hash: is required" in result.output


def test_a_proxy_that_does_not_answer_is_named_as_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    said = failure("--url", "http://llm.example.eu")
    assert "through the proxy" in said
    assert "NO_PROXY" in said


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"models": 3}', b"\xff"])
def test_what_is_no_comptoir_endpoint_is_called_so(endpoint: Endpoint, body: bytes) -> None:
    endpoint.body = body
    assert "is not a Comptoir endpoint" in failure("--url", endpoint.url)


def test_what_has_no_such_page_is_no_comptoir_endpoint(endpoint: Endpoint) -> None:
    endpoint.status = 404
    assert "is not a Comptoir endpoint" in failure("--url", endpoint.url)


def test_what_does_not_speak_http_is_called_so(endpoint: Endpoint) -> None:
    endpoint.raw = b"220 mail.example.eu ready\r\n"
    assert "is not a Comptoir endpoint" in failure("--url", endpoint.url)


def test_an_endpoint_that_is_gone_does_not_answer() -> None:
    assert "does not answer" in failure("--url", "http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["file:/etc/passwd", "localhost:8000", "ftp://x"])
def test_only_http_is_asked(url: str) -> None:
    result = status("--url", url)
    assert isinstance(result.exception, ConfigError), result.output
    assert "http://" in result.exception.message


def test_without_a_stack_it_says_how_to_start_one(cache: Path) -> None:
    assert "comptoir up" in failure()


def test_the_only_stack_is_found(cache: Path, endpoint: Endpoint) -> None:
    note(cache, endpoint.port)
    result = status()
    assert result.exit_code == 0, result.output
    assert f"stack on port {endpoint.port}, process {os.getpid()}" in result.stdout


def test_a_port_where_nothing_runs_is_named_with_those_where_something_does(cache: Path) -> None:
    note(cache, 9)
    assert failure("--port", "8") == "no stack is running on port 8; there is one on port 9"


def test_a_stack_that_lives_goes_before_notes_of_those_that_ended_badly(
    cache: Path, endpoint: Endpoint
) -> None:
    note(cache, endpoint.port)
    note(cache, 9, pid=2**22 + 1)
    assert status().exit_code == 0
    assert failure("--port", "8").endswith(f"there is one on port {endpoint.port}")


def test_one_of_several_stacks_has_to_be_chosen(cache: Path, endpoint: Endpoint) -> None:
    note(cache, endpoint.port)
    note(cache, 9)
    assert f"choose one with --port: 9, {endpoint.port}" in failure()
    assert status("--port", str(endpoint.port)).exit_code == 0


def test_prefill_replicas_have_rows_of_their_own(endpoint: Endpoint) -> None:
    model = {"id": "m", "state": "ready", "replicas": [REPLICA]}
    model["prefill"] = {"replicas": [REPLICA | {"id": "p1", "running": 7.0}]}
    endpoint.body = json.dumps({"models": [model]}).encode()
    rows = [line.split() for line in status("--url", endpoint.url).stdout.splitlines()]
    (row,) = [row for row in rows if "(prefill)" in row]
    assert row[:5] == ["m", "(prefill)", "ready", "p1", "7"]
