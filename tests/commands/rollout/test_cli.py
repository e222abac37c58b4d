"""`comptoir rollout` against a dashboard and an endpoint that are real HTTP servers, without Ray."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serving.commands.rollout import cli as rollout
from serving.commands.rollout.api import Cluster
from serving.errors import ConfigError, StackError
from serving.rollout.document import same, with_application
from serving.rollout.steps import started, weighted
from tests.rollout.sites import application, model, site

BEFORE = site()
HALF = weighted(
    started(BEFORE, "qwen3", application(BEFORE, "qwen3")["args"] | {"device": "cpu"}), "qwen3", 25
)


class Site:
    """Both servers in one: the dashboard's REST API, and what a gateway says of itself."""

    def __init__(self) -> None:
        self.document = copy.deepcopy(BEFORE)
        self.tokens: list[str | None] = []
        self.view = "site"
        self.puts = 0
        # How long it takes to write, and what somebody else writes right after.
        self.slow_s = 0.0
        self.after_put: Any = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> Any:
        names = [one["name"] for one in self.document["applications"]]
        if path == "/api/serve/applications/":
            return {
                "proxy_location": self.document["proxy_location"],
                "applications": {
                    one["name"]: {"status": "RUNNING", "deployed_app_config": one}
                    for one in self.document["applications"]
                },
            }
        if path == "/status":
            asked = {"qwen3--r2": {"requests": 4.0, "failed": 1.0}}
            models = [
                {"id": name, "state": "ready", "replicas": [], "asked": asked.get(name)}
                for name in names
            ]
            return {"view": self.view, "models": models}
        if path.startswith("/v1/models/"):
            return {"id": path, "task": "chat"}
        return {"choices": []}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def _send(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                ours.tokens.append(self.headers.get("Authorization"))
                self._send(json.dumps(ours.answer(self.path)).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(ours.slow_s)
                ours.puts += 1
                ours.document = copy.deepcopy(ours.after_put) or json.loads(body)
                self._send(b"")

            def log_message(self, *args: Any) -> None: ...

        return Handler


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("COMPTOIR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-token")
    monkeypatch.setattr("serving.commands.rollout.run.QUIET_S", 0.0)
    monkeypatch.setattr("serving.commands.rollout.run.POLL_S", 0.01)
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def call(site: Site | None, *args: str) -> str:
    where = ["--address", site.url, "--url", site.url] if site else []
    if args[0] == "export":
        where = where[:2]
    result = CliRunner().invoke(rollout.app, [*args, *where])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_start_to_promotion(running: Site) -> None:
    out = call(running, "start", "qwen3", "--to", "device=cpu", "--weight", "10")
    assert "qwen3--r2 gets 10 % of 'qwen3'" in out
    assert "before it was 10 %" in call(running, "weight", "qwen3", "25")
    assert same(running.document, HALF)
    call(running, "promote", "qwen3")
    assert [one["name"] for one in running.document["applications"]] == [
        "gateway",
        "glm",
        "qwen3--r2",
    ]
    assert "Bearer secret-token" in running.tokens


def test_abort_brings_back_what_was(running: Site) -> None:
    running.document = copy.deepcopy(HALF)
    assert "qwen3--r2 is gone" in call(running, "abort", "qwen3")
    assert same(running.document, BEFORE)


@pytest.mark.parametrize(
    ("command", "document", "line"),
    [
        (["start", "qwen3", "--to", "device=cpu"], BEFORE, "+- name: qwen3--r2"),
        (["weight", "qwen3", "50"], HALF, "+              weight: 50.0"),
        (["promote", "qwen3"], HALF, "-    catalogue: tiny-qwen3"),
        (["abort", "qwen3"], HALF, "-  - name: GatewayReplica"),
    ],
)
def test_a_dry_run_shows_the_difference_and_makes_none(
    running: Site, command: list[str], document: Any, line: str
) -> None:
    running.document = copy.deepcopy(document)
    out = call(running, *command, "--dry-run")
    assert line in out.splitlines()
    assert same(running.document, document)


def test_the_args_can_come_from_a_file(running: Site, tmp_path: Path) -> None:
    path = tmp_path / "args.yaml"
    path.write_text(yaml.safe_dump({"catalogue": "tiny-yi", "device": "cpu"}))
    call(running, "start", "qwen3", "--args", str(path))
    args = application(running.document, "qwen3--r2")["args"]
    assert args == {"id": "qwen3--r2", "catalogue": "tiny-yi", "device": "cpu"}


def test_the_status_shows_both_revisions(running: Site) -> None:
    assert "no rollout is in progress" in call(running, "status")
    running.document = copy.deepcopy(HALF)
    (report,) = json.loads(call(running, "status", "qwen3", "--json"))
    assert (report["model"], report["changes"]) == ("qwen3", ["device"])
    old, new = report["revisions"]
    assert (old["id"], old["weight"], old["requests"]) == ("qwen3", 75, 0)
    assert (new["id"], new["weight"], new["state"]) == ("qwen3--r2", 25, "RUNNING")
    assert (new["requests"], new["error_share"]) == (4, 0.25)
    assert "25.00 %" in call(running, "status")


def test_what_runs_can_be_kept_as_a_file(running: Site, tmp_path: Path) -> None:
    running.document = copy.deepcopy(HALF)
    assert same(yaml.safe_load(call(running, "export")), HALF)
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(BEFORE | {"logging_config": {"enable_access_log": False}}))
    kept = yaml.safe_load(call(running, "export", str(path)))
    assert kept.pop("logging_config") == {"enable_access_log": False}
    assert same(kept, HALF)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["start", "nobody", "--to", "device=cpu"], "no model 'nobody' on the cluster"),
        (["start", "qwen3"], "give --to KEY=VALUE"),
        (["start", "qwen3", "--to", "revison=main"], "revison: unknown key"),
        (["start", "qwen3", "--args", "nowhere.yaml"], "cannot be read"),
        (["start", "qwen3", "--to", "device=cpu", "--weight", "101"], "from 0 to 100"),
        (["weight", "qwen3", "5"], "no rollout of 'qwen3' is in progress"),
        (["promote", "qwen3"], "no rollout of 'qwen3' is in progress"),
        (["abort", "glm"], "no rollout of 'glm' is in progress"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(
    running: Site, command: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        call(running, *command)
    assert same(running.document, BEFORE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ([], StackError, "no stack is running"),
        (["--address", "localhost:8265"], ConfigError, "--address must begin with http"),
        (["--address", "http://127.0.0.1:9", "--url", "http://x"], StackError, "does not answer"),
    ],
)
def test_a_cluster_that_is_not_there_is_said_to_be_none(
    running: Site, options: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(None, "status", *options)


def test_without_the_endpoint_nothing_is_removed(running: Site) -> None:
    running.document = copy.deepcopy(HALF)
    with pytest.raises(ConfigError, match="--url: is required"):
        call(None, "promote", "qwen3", "--address", running.url)
    assert same(running.document, HALF)


@pytest.mark.parametrize("command", ["promote", "abort", "status"])
def test_a_key_that_does_not_see_the_site_is_refused_before_anything_is_changed(
    running: Site, command: str
) -> None:
    running.document, running.view = copy.deepcopy(HALF), "tenant"
    with pytest.raises(StackError, match="scope operator"):
        call(running, command, *(["qwen3"] if command != "status" else []))
    assert same(running.document, HALF)


def test_two_rollouts_at_once_lose_nothing_of_each_other(running: Site) -> None:
    # Each looks, both see the same, and each writes a document of its own.
    before = Cluster(running.url).running().document
    documents = [with_application(before, model(name)) for name in ("yi", "mistral")]
    running.slow_s = 0.05
    outcomes: dict[int, str] = {}

    def submit(number: int) -> None:
        try:
            Cluster(running.url).submit(before, documents[number])
            outcomes[number] = "done"
        except StackError as error:
            outcomes[number] = error.message

    threads = [threading.Thread(target=submit, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [number for number, outcome in outcomes.items() if outcome == "done"]
    assert len(done) == 1
    assert "has changed meanwhile" in outcomes[1 - done[0]]
    assert same(running.document, documents[done[0]])
    assert running.puts == 1


def test_who_is_overwritten_in_the_same_moment_is_told(running: Site) -> None:
    before = Cluster(running.url).running().document
    theirs = with_application(before, model("yi"))
    # Someone who takes no turns, such as `serve deploy` on another machine.
    running.after_put = theirs
    with pytest.raises(StackError, match="theirs is the one that runs"):
        Cluster(running.url).submit(before, with_application(before, model("mistral")))
    assert same(running.document, theirs)
