"""Starts the process of the clients and gives it jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.contenders import ENV, MODEL
from loadtests.processes.child import Child, ProcessError

# vLLM's client measures streams only: what is not streamed has no event to time.
CLIENTS = ("vllm", "own")
START_TIMEOUT_S = 180.0
JOB_TIMEOUT_S = 600.0


class ClientError(Exception):
    """A client could not measure; the message says why."""


@dataclass(frozen=True)
class Target:
    """The target of a client's requests."""

    address: str
    headers: Mapping[str, str]


class ClientProcess:
    """The clients, ready to measure.

    Raises:
        ProcessError: the process does not start.
    """

    def __init__(self, names: Sequence[str], tokenizer: Path) -> None:
        self._tokenizer = tokenizer
        self.names = tuple(names)
        arguments = ["--with-vllm"] if "vllm" in names else []
        self.child = Child.module(
            "the client", "loadtests.bench.compare.client_process", *arguments, env=ENV
        )

    def wait_until_ready(self) -> None:
        """Wait for the imports.

        Raises:
            ProcessError: they fail.
        """
        self.child.read_line(START_TIMEOUT_S)

    def for_cell(self, cell: Cell) -> list[str]:
        """The clients that can measure a cell; ours where no other can."""
        return [name for name in self.names if cell.stream or name != "vllm"] or ["own"]

    def measure(
        self, client: str, target: Target, cell: Cell, salt: str, requests: int
    ) -> dict[str, float]:
        """One burst.

        Raises:
            ClientError: it has failed as a whole; single failed requests are counted in `errors`.
        """
        job = {
            "client": client,
            "address": target.address,
            "headers": dict(target.headers),
            "model": MODEL,
            "tokenizer": str(self._tokenizer),
            "streams": cell.streams,
            "tokens": cell.tokens,
            "stream": cell.stream,
            "prompts": cell.prompts(salt, requests),
        }
        try:
            answer = json.loads(self.child.ask(json.dumps(job), JOB_TIMEOUT_S))
        except (OSError, ProcessError) as error:
            raise ClientError(str(error)) from None
        if "error" in answer:
            raise ClientError(answer["error"])
        figures: dict[str, float] = answer["figures"]
        return figures
