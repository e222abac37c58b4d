"""CPU seconds and memory of a server's processes, by role, and the CPU use of others meanwhile."""

from __future__ import annotations

import time
from collections import Counter

import psutil

from loadtests.bench.compare.roles import role_of
from loadtests.processes.child import Child, cpu_s


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
        used: dict[str, float] = {}
        for process in self._processes():
            seconds = max(0.0, cpu_s(process) - self._before.get(process, 0.0))
            role = self._role(process)
            used[role] = used.get(role, 0.0) + seconds
        return used, max(0.0, busy_s - sum(used.values())) / elapsed_s

    def idle_cores(self, seconds: float) -> float:
        """Cores that the idle server uses."""
        self.begin()
        time.sleep(seconds)
        used, _ = self.end()
        return (sum(used.values()) - used.get("client", 0.0)) / seconds

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


def _busy_s() -> float:
    """CPU seconds that the whole machine has used or been denied."""
    times = psutil.cpu_times()
    return float(sum(times[:8]) - times.idle - times.iowait)
