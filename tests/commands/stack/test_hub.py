"""The model hub is asked once, for a bounded time, and not where the site says no."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from serving.commands.stack import hub
from serving.settings import ProcessSettings


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.path)
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_whatever_the_hub_answers_it_can_be_reached(asked: list[str]) -> None:
    assert hub.HubProbe().answer()
    assert len(asked) == 1


def test_it_is_not_asked_offline(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.HubProbe().answer()
    assert asked == []


def test_nobody_there_means_no(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert not hub.HubProbe().answer()


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.05)
    release = threading.Event()
    began = time.monotonic()
    assert not hub.HubProbe(release.wait).answer()
    assert time.monotonic() - began < 30
    release.set()


def test_a_site_is_silent_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPTOIR_PROBE_HUB", raising=False)
    assert not ProcessSettings.load().probe_hub
    monkeypatch.setenv("COMPTOIR_PROBE_HUB", "1")
    assert ProcessSettings.load().probe_hub
