"""CPU seconds and memory of a server's processes, by role, and what others took meanwhile."""

from __future__ import annotations

import time
from collections import Counter

import psutil

from loadtests.bench.compare.roles import role_of
from loadtests.bench.processes import Child, cpu_s

# A few milliseconds each.
SPEED_LOOPS = 50_000
SPEED_TRIES = 5


class Usage:
    """Watches the processes of a server and of the client."""

    def __init__(self, server: Child, client: Child) -> None:
        self._server = server
        self._client = client
        self._before: dict[psutil.Process, float] = {}
        self._busy_before_s = 0.0
        self._began_s = 0.0

    def begin(self) -> None:
        """Remember how much each process has used until now."""
        self._before = {process: cpu_s(process) for process in self._processes()}
        self._busy_before_s, self._began_s = _busy_s(), time.perf_counter()

    def end(self) -> tuple[dict[str, float], float]:
        """CPU seconds by role since `begin`, and how many cores all other processes took meanwhile.

        A process that has ended since then is missing from the first and counted in the second.
        """
        busy_s, elapsed_s = _busy_s() - self._busy_before_s, time.perf_counter() - self._began_s
        used: Counter[str] = Counter()
        for process in self._processes():
            seconds = cpu_s(process) - self._before.get(process, 0.0)
            used[self._role(process)] += max(0.0, seconds)
        return dict(used), max(0.0, busy_s - used.total()) / elapsed_s

    def resident_by_role(self) -> dict[str, int]:
        """Resident bytes now, shared pages counted in each process; the client left out."""
        found: Counter[str] = Counter()
        for process in self._server.tree():
            try:
                found[self._role(process)] += process.memory_info().rss
            except psutil.Error:
                continue
        return dict(found)

    def _processes(self) -> list[psutil.Process]:
        return [*self._server.tree(), psutil.Process(self._client.pid)]

    def _role(self, process: psutil.Process) -> str:
        if process.pid == self._client.pid:
            return "client"
        try:
            role = role_of(process.cmdline())
        except psutil.Error:
            role = "other"
        return "launcher" if role == "other" and process.pid == self._server.pid else role


def machine_speed() -> float:
    """Rounds of a fixed small sum per second, the best of a few tries: what one core gives just now."""
    best_s = min(_timed_sum() for _ in range(SPEED_TRIES))
    return 1 / best_s


def _timed_sum() -> float:
    began_s = time.perf_counter()
    sum(number * number % 7 for number in range(SPEED_LOOPS))
    return time.perf_counter() - began_s


def _busy_s() -> float:
    """CPU seconds that the whole machine has used or not been given."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)
