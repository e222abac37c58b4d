"""The HTTP client of all commands: what it asks a proxy, and what never."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtests.generator import scrape
from serving import http_client
from serving.cli import app
from serving.commands.endpoint import get
from serving.commands.rollout.api import Cluster, Endpoint
from serving.commands.stack import progress_view, ray_api
from serving.commands.stack.state import StackState
from serving.errors import ComptoirError, ConfigError, StackError

VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
TOKEN = "ray-token-c07a"


@dataclass
class Server:
    """Answers everything with 200 and says what it was asked."""

    url: str = ""
    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def serve(told: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.lines.append(self.requestline)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serve(Server())


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy that the environment names in every way, and that nobody is to be spared by NO_PROXY."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for one in serve(Server(body=b'{"models": []}')):
        for name in VARIABLES:
            monkeypatch.setenv(name, one.url)
        yield one


# ---- what never goes through a proxy -----------------------------------------------------------------


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


def test_nothing_for_this_machine_or_the_cluster_reaches_the_proxy(
    server: Server, proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    state = StackState("id", 1, 1.0, "127.0.0.1", port_of(server), server.url, "x.yaml")
    ray_api.deploy(server.url, {"applications": []})
    assert ray_api.applications(server.url) == {}
    assert progress_view.answers(state)
    assert progress_view._ready_models(state, {"m"}) == (True, set())
    server.body = b'{"applications": {}}'
    assert Cluster(server.url).running().applications == {}
    server.body = b'{"models": []}'
    assert Endpoint(server.url, "key").status() == {"models": []}
    assert get(server.url, "/metrics", "key", "it") == '{"models": []}'
    done = CliRunner().invoke(app, ["status", "--url", server.url, "--key", "k"])
    assert done.exit_code == 0, done.output
    with http_client.client(server.url, timeout_s=5) as client:
        server.body = b"vllm:num_requests_running 3.0\n"
        assert dict(scrape.scrape({server.url: client}, {}, {}))[server.url]
    assert len(server.lines) == 9
    assert proxy.lines == []


@pytest.mark.usefixtures("proxy")
def test_the_inside_of_a_cluster_is_asked_directly_whatever_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def refuse(address: tuple[str, int], *_: object, **__: object) -> None:
        asked.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    head = ("head.example", 8265)
    assert ray_api.applications("http://head.example:8265") == {}
    with pytest.raises(StackError, match="does not answer: Connection refused"):
        ray_api.deploy("http://head.example:8265", {})
    with pytest.raises(StackError, match="does not answer: Connection refused"):
        Cluster("http://head.example:8265").running()
    assert not progress_view.answers(StackState("id", 1, 1.0, "192.0.2.1", 1, "", "x.yaml"))
    assert asked == [head, head, head, ("192.0.2.1", 1)]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ],
)
def test_loopback_has_many_names(proxy: Server, host: str) -> None:
    assert http_client.proxy_for(f"http://{host}:8000/status") is None


# ---- what does, by the user's settings ---------------------------------------------------------------


def test_a_named_remote_endpoint_is_asked_through_the_proxy(proxy: Server) -> None:
    done = CliRunner().invoke(app, ["status", "--url", "http://llm.example:8000"])
    assert done.exit_code == 0, done.output
    assert Endpoint("http://llm.example:8000").status() == {"models": []}
    assert proxy.lines == ["GET http://llm.example:8000/status HTTP/1.1"] * 2


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("", "http://llm.example", False),
        ("*", "http://llm.example", True),
        ("other.example", "http://llm.example", False),
        ("example", "http://llm.example", True),
        (".example", "http://llm.example", True),
        ("*.example", "http://LLM.example:1", True),
        ("a, llm.example:8000 ", "http://llm.example:8000", True),
        ("m.example", "http://llm.example", False),
        ("10.0.0.0/8", "http://10.1.2.3:8000", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("fd00::/8", "http://[fd00::5]:8000", True),
        ("fd00::/8", "http://llm.example", False),
        ("/,::,[", "http://llm.example", False),
    ],
)
def test_no_proxy_is_honoured(
    proxy: Server, monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, is_direct: bool
) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert http_client.proxy_for(url) == (None if is_direct else proxy.url)


def test_the_proxy_of_the_scheme_goes_before_the_one_for_all(
    proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "proxy.example:3128")
    assert http_client.proxy_for("https://llm.example") == "http://proxy.example:3128"
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name)
    assert http_client.proxy_for("http://llm.example") == proxy.url


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1", "ftp://x", "::"])
def test_a_proxy_that_cannot_be_used_is_a_mistake_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must be URLs"):
        http_client.ask("http://llm.example", timeout_s=1)


def test_children_are_told_what_is_inside() -> None:
    told = http_client.without_proxies({"no_proxy": "corp.example, ::1"}, "10.0.0.5")
    assert told["NO_PROXY"] == told["no_proxy"] == "corp.example,::1,localhost,127.0.0.1,10.0.0.5"


# ---- what comes back ---------------------------------------------------------------------------------


def test_a_redirect_is_not_followed_and_named(server: Server) -> None:
    server.status, server.headers = 301, {"Location": "https://other.example/status"}
    with pytest.raises(StackError, match=r"status 301: it refers to https://other\.example/status"):
        get(server.url, "/status", "key", "it")


def test_an_answer_that_never_ends_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER_BYTES", 2**20)
    server.body = b"x" * (2**20 + 1)
    with pytest.raises(http_client.NotHttp, match="longer than 1 MiB"):
        http_client.ask(server.url, timeout_s=5)


def test_the_systems_words_are_the_reason() -> None:
    with pytest.raises(http_client.Unreachable, match="Connection refused"):
        http_client.ask("http://127.0.0.1:9", timeout_s=5)


def test_what_is_no_url_is_an_error_of_ours() -> None:
    with pytest.raises((http_client.Unreachable, http_client.NotHttp, ComptoirError)):
        http_client.ask("http://exa mple:port", timeout_s=1)
