"""One contender while it runs: started, ready, warm, stopped with its whole process tree."""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.answers.dialects import judged
from loadtests.answers.reading import Expected
from loadtests.bench.compare.clients import Target
from loadtests.bench.compare.contenders import MODEL, Contender, Place
from loadtests.processes.child import Child
from loadtests.processes.free_ports import free_port
from serving import api

START_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Server:
    """A contender that answers."""

    child: Child
    target: Target
    started_in_s: float


@contextmanager
def running(contender: Contender, model: Path, key: str) -> Iterator[Server]:
    """Start a contender and wait until it answers a completion; stop all its processes afterwards.

    Raises:
        ProcessError: it does not answer, with the end of its log.
    """
    # Short: Ray's sockets lie under it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    place = Place(model, folder, free_port(), key)
    launch = contender.launch(place)
    target = Target(f"127.0.0.1:{place.port}", {"authorization": f"Bearer {key}"})
    began_s = time.monotonic()
    try:
        with Child(contender.title, launch.command, launch.env) as child:
            _wait_until_it_answers(child, target)
            yield Server(child, target, time.monotonic() - began_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def complete(
    target: Target, prompt: str, tokens: int, timeout_s: float = 60.0, *, stream: bool = False
) -> str | None:
    """The text of one chat completion at temperature 0; None where it is not complete and well-formed."""
    host, _, port = target.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout_s)
    path = api.CHAT
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"content-type": "application/json", **target.headers}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        content, kind = response.read(), response.headers.get("content-type", "")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if response.status != 200:
        return None
    answer = judged(Expected.of(path, body), kind, content, keep_text=True)
    return None if answer.failure else answer.text


def _wait_until_it_answers(child: Child, target: Target) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while complete(target, "Bonjour", 2) is None:
        if not child.is_running:
            raise child.failed("ended while it started")
        if time.monotonic() > deadline_s:
            raise child.failed(f"did not answer within {START_TIMEOUT_S:.0f} s")
        time.sleep(0.5)
