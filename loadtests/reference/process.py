"""Starts the reference server as a process of its own, for tests and checks."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.processes.child import Child
from loadtests.reference.config import ReferenceConfig
from loadtests.reference.truth import Truth
from serving import api
from serving.config.base import validated

# Long, for machines that have other things to do.
START_S = 120.0
# It may stand still meanwhile.
ANSWER_S = 120.0


@dataclass(frozen=True)
class Running:
    """A server that runs: `url` is without `/v1`, `address` is host:port."""

    url: str
    pid: int

    @property
    def address(self) -> str:
        """For raw clients."""
        return self.url.removeprefix("http://")

    def truth(self) -> dict[str, Truth]:
        """The finished requests by their `x-request-id`, or by their number; of equal ids the last."""
        truths = map(Truth.from_line, self._ask("GET", "/truth").splitlines())
        return {truth.id: truth for truth in truths}

    def forget(self) -> None:
        """Begin a new list of finished requests."""
        self._ask("DELETE", "/truth")

    def freeze(self, in_s: float, for_s: float) -> None:
        """Let it stand still; returns at once."""
        self._ask("POST", "/freeze", json.dumps({"in_s": in_s, "for_s": for_s}))

    def freezes(self) -> list[tuple[float, float]]:
        """From when to when it stood still, in `time.perf_counter()` seconds."""
        return [(began, ended) for began, ended in json.loads(self._ask("GET", "/freezes"))]

    def metrics(self) -> str:
        """Its Prometheus metrics."""
        return self._ask("GET", api.METRICS).decode()

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=ANSWER_S)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"{path}: {data.decode(errors='replace')}")
        return data


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A server on a free port with these keys of `ReferenceConfig`; its process ends with the block.

    Raises:
        ConfigError: naming the key that does not fit.
        ProcessError: it did not start.
    """
    config = validated(ReferenceConfig, options, "options of the reference server")
    # From whatever folder this runs.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = Child.module(
        "the reference server",
        "loadtests.reference.listening",
        config.model_dump_json(exclude_unset=True),
        env={"PYTHONPATH": path},
    )
    with child:
        first = json.loads(child.read_line(START_S))
        yield Running(first["url"], first["pid"])
