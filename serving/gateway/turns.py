"""Runs the long work of large requests in slices of a millisecond, so that streams go on meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
SLICE_S = 0.001


class Turns:
    """Gives one slice a turn of the event loop, whoever asks, and each request its slice in turn.

    A thread would not do: it has the interpreter's lock for 5 ms at a time, and the event loop would wait for
    it at each of its callbacks.
    """

    def __init__(
        self, slice_s: float = SLICE_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._slice_s = slice_s
        self._clock = clock
        self._turn = asyncio.Lock()

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run the generator and return its result; it yields where others may run."""
        while True:
            # First come, first served: so many requests at once only get slower, all alike.
            async with self._turn:
                until = self._clock() + self._slice_s
                try:
                    while True:
                        next(steps)
                        if self._clock() >= until:
                            break
                except StopIteration as over:
                    result: T = over.value
                    # What comes next is work, too.
                    await asyncio.sleep(0)
                    return result
                # While it has the lock: a turn of the loop has no second slice.
                await asyncio.sleep(0)
