"""Sends generated requests, several at a time: no 5xx that is not an engine's, and nothing that hangs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from loadtests.hostile.generated import requests
from loadtests.hostile.target import Target
from loadtests.hostile.wire import BrokenError, Wire

PARALLEL = 8
# An engine that is broken, unavailable or too slow; a method or a version that nobody speaks.
RIGHT = frozenset({501, 502, 503, 504, 505})
# How long we wait for the answer to a request that may be incomplete, before we leave.
PATIENCE_S = 0.25


@dataclass
class Fuzzed:
    """The results of the requests."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


async def fuzz(
    target: Target, count: int, seed: int, progress: Callable[[int], None] = lambda done: None
) -> Fuzzed:
    """Send so many; every fault names the number of its request, which the seed makes again."""
    found = Fuzzed()
    numbered = enumerate(islice(requests(target, seed), count))

    async def work() -> None:
        for number, (request, is_framed) in numbered:
            try:
                await _one(target, request, is_framed, found)
            except BrokenError as error:
                found.faults.append(f"request {number} of seed {seed}: {error}")
            except OSError as error:
                found.faults.append(f"request {number} of seed {seed}: {type(error).__name__}")
            if number % 100 == 0:
                progress(number)

    await asyncio.gather(*(work() for _ in range(PARALLEL)))
    return found


async def _one(target: Target, request: bytes, is_framed: bool, found: Fuzzed) -> None:
    async with await Wire.open(target) as wire:
        await wire.try_send(request)
        if is_framed:
            reply = await wire.reply("POST", target.cut_s + 5)
        else:
            # It may ask for more than it has sent; that ends with ours, or with the endpoint's patience.
            try:
                reply = await wire.reply("POST", PATIENCE_S)
            except BrokenError as error:
                if "within" not in str(error):
                    raise
                found.statuses["left"] += 1
                return
        if reply is None:
            if is_framed:
                raise BrokenError("no answer to a whole request")
            found.statuses["closed"] += 1
            return
        found.statuses[str(reply.status)] += 1
        if reply.status >= 500 and reply.status not in RIGHT:
            raise BrokenError(f"status {reply.status}")
