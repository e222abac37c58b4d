"""A target of our own: a gateway with tight limits before an engine that costs nothing, each a process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loadtests.bench.null.gateway import MODEL
from loadtests.hostile.gateway import CUT_S, OTHER_MODEL
from loadtests.hostile.target import Target
from loadtests.processes.child import Child
from serving.settings import hash_key

START_TIMEOUT_S = 30.0
INTERVAL_MS = 20.0


@dataclass(frozen=True)
class Own:
    """The target and the process that serves it."""

    target: Target
    gateway: Child


@contextmanager
def own_target() -> Iterator[Own]:
    """Start both processes; end them afterwards."""
    key, other_key, token = (secrets.token_urlsafe(32) for _ in range(3))
    with Child.module("the engine", "loadtests.hostile.engine", token, str(INTERVAL_MS)) as engine:
        address = f"http://127.0.0.1:{engine.read_line(START_TIMEOUT_S)}"
        arguments = (address, token, hash_key(key), hash_key(other_key))
        with Child.module("the gateway", "loadtests.hostile.gateway", *arguments) as gateway:
            port = int(gateway.read_line(START_TIMEOUT_S))
            yield Own(
                Target(
                    "127.0.0.1",
                    port,
                    MODEL,
                    key,
                    other_key,
                    OTHER_MODEL,
                    cut_s=CUT_S,
                    long_answers=True,
                    silent_connections=2000,
                ),
                gateway,
            )
