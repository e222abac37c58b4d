"""Limits the short work in one turn of the event loop, so that a burst of requests stops no stream.

What takes half a millisecond for one request takes a quarter of a second for five hundred of them, and all
who come in one turn of the loop are served in it. Here the rest of them waits for the next turns, first come,
first served.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# What is counted is about half of what is done.
BUDGET_S = 0.002
# The share of the newest piece of work in what the next ones are expected to take.
LEARNING_RATE = 0.1


class Pace:
    """Gives a part of each turn of the loop to work that is too short for slices of its own (`Turns`)."""

    def __init__(
        self, budget_s: float = BUDGET_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._budget_s = budget_s
        self._clock = clock
        self._spent_s = 0.0
        self._usual_s = budget_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_armed = False

    @property
    def is_full(self) -> bool:
        """Whether this turn's time is spent: what comes now must `enter`."""
        return self._spent_s >= self._budget_s or bool(self._waiting)

    async def enter(self) -> None:
        """Wait until there is time."""
        if self.is_full:
            woken = asyncio.get_running_loop().create_future()
            self._waiting.append(woken)
            self._arm()
            await woken

    def spend(self, seconds: float) -> None:
        """Count time spent in this turn."""
        self._spent_s += seconds
        self._usual_s += LEARNING_RATE * (seconds - self._usual_s)
        if not self._is_armed:
            self._arm()

    async def run(self, work: Callable[[], T]) -> T:
        """Run the work when there is time, and return its result."""
        await self.enter()
        began_s = self._clock()
        try:
            return work()
        finally:
            self.spend(self._clock() - began_s)

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Begin another turn: as many waiters go on as there is time for, at least one."""
        self._is_armed = False
        self._spent_s = 0.0
        left = max(1, int(self._budget_s / max(self._usual_s, 1e-6)))
        while self._waiting and left:
            woken = self._waiting.popleft()
            # Who has left meanwhile is cancelled.
            if not woken.done():
                woken.set_result(None)
                left -= 1
        if self._waiting:
            self._arm()
