"""An OpenAI-compatible endpoint that answers what a test tells it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = [{"id": "embedder", "task": "embed"}, {"id": "m", "aliases": ["nick"]}, {"id": "n"}]


def chunk(content: str = "", finish: str | None = None, **delta: Any) -> dict[str, Any]:
    words = {"content": content} if content else {}
    return {"choices": [{"delta": words | delta, "finish_reason": finish}], "usage": None}


def usage(tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}


@dataclass
class FakeEndpoint:
    """What it answers, and what it was asked."""

    url: str = ""
    key: str | None = None
    models: list[dict[str, Any]] = field(default_factory=lambda: list(MODELS))
    unlisted: tuple[str, ...] = ()
    events: list[Any] = field(
        default_factory=lambda: [chunk("Bon"), chunk("jour"), chunk(finish="stop"), usage(2)]
    )
    pause_s: float = 0.0
    cuts: bool = False
    refusal: tuple[int, dict[str, Any]] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)


def _handler(told: FakeEndpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/v1/models").removeprefix("/")
            if told.key and self.headers["Authorization"] != f"Bearer {told.key}":
                self.say(401, {"error": {"message": "no"}})
            elif not self.path.startswith("/v1/models") or (name and name not in told.unlisted):
                self.say(404, {"error": {"message": "not found"}})
            else:
                self.say(200, {"data": told.models})

        def do_POST(self) -> None:
            told.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if told.refusal:
                self.say(*told.refusal)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            # A connection that ends before its declared length was cut.
            if told.cuts:
                self.send_header("Content-Length", "100000")
            self.end_headers()
            try:
                for event in told.events:
                    data = event if isinstance(event, str) else json.dumps(event)
                    self.wfile.write(f"data: {data}\n\n".encode())
                    self.wfile.flush()
                    time.sleep(told.pause_s)
            except OSError:
                told.left.set()

        def say(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            """Keeps the test's output clean."""

    return Handler


@contextmanager
def serving() -> Iterator[FakeEndpoint]:
    told = FakeEndpoint()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(told))
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
