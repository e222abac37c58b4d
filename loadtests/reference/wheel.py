"""One timer for all streams: what is due in the same fraction of a millisecond is sent in the same turn."""

from __future__ import annotations

import asyncio
import math
import time
from heapq import heappop, heappush
from typing import Protocol

TICK_S = 0.00025


class Emitter(Protocol):
    """Something with a next thing to do."""

    def emit(self) -> None:
        """Do it; called once for each `put`."""


class EngineClock:
    """`time.perf_counter()`, less the time that the server stood still: plans continue where they were."""

    def __init__(self) -> None:
        self.frozen_s = 0.0

    def __call__(self) -> float:
        return time.perf_counter() - self.frozen_s

    def freeze(self, for_s: float) -> tuple[float, float]:
        """Stand still with the whole process, and say from when to when."""
        began_s = time.perf_counter()
        time.sleep(for_s)
        ended_s = time.perf_counter()
        self.frozen_s += ended_s - began_s
        return began_s, ended_s


class Wheel:
    """Emitters by the tick in which they are due; never early."""

    def __init__(self, clock: EngineClock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ticks: dict[int, list[Emitter]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        # The tick that the timer is set for; -1 during a turn, which sets it at its end.
        self._armed = math.inf

    def put(self, due_s: float, emitter: Emitter) -> None:
        """Let it emit when the clock says `due_s`, or as soon as possible after."""
        tick = math.ceil(due_s / TICK_S)
        there = self._ticks.get(tick)
        if there is not None:
            there.append(emitter)
            return
        self._ticks[tick] = [emitter]
        heappush(self._order, tick)
        if tick < self._armed:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._order[0] if self._order else math.inf
        if self._order:
            delay_s = self._order[0] * TICK_S - self._clock()
            self._timer = self._loop.call_later(max(0.0, delay_s), self._turn)

    def _turn(self) -> None:
        self._timer, self._armed = None, -1
        # What becomes due meanwhile waits for the next turn: requests must be read in between.
        limit = self._clock() / TICK_S
        try:
            while self._order and self._order[0] <= limit:
                for emitter in self._ticks.pop(heappop(self._order)):
                    emitter.emit()
        finally:
            self._arm()
