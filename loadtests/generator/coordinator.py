"""A run over one or several generator processes: its start, the division of work, its end.

`Member` is one generator process; `Coordinator` holds the run's folder, on Locust's master or in the only
process. What they tell each other are dictionaries that Locust's messages carry.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

from loadtests.generator.client import Client, Endpoint
from loadtests.generator.finish import EXIT_OK, exit_code, finish
from loadtests.generator.lag import LagWatch
from loadtests.generator.sender import Generator
from loadtests.run.folder import BEGUN, PROGRESS, RunFolder
from loadtests.run.record import Record
from loadtests.workload.bodies import Composer
from loadtests.workload.conversations import Plan, plan, share, user_plan
from loadtests.workload.scenario import Scenario

# Between the order to begin and time zero: everybody is told by then.
LEAD_S = {"one": 0.5, "several": 2.0}
# How long after the drain the last reports may take; Locust's workers report every three seconds.
GRACE_S = 8.0


class Member:
    """One generator process."""

    def __init__(self, scenario: Scenario, work: Plan | None, composer: Composer) -> None:
        self.scenario = scenario
        self._plan = work
        self._composer = composer
        self._users = itertools.count()
        self._log: Callable[[Record], None] = lambda record: None
        self._lines: list[bytes] = []
        self._lag_rows: list[dict[str, Any]] = []
        self._generator: Generator | None = None
        self._watch: gevent.Greenlet[[], None] | None = None
        self._index, self._count, self._zero_s = 0, 1, 0.0
        self._is_planned = False

    @classmethod
    def prepare(cls, scenario: Scenario, log: Callable[[Record], None]) -> Member:
        """Do all slow work before the run begins.

        Raises:
            ConfigError: a trace, a tokenizer or the address does not fit.
        """
        work = None if scenario.arrivals.kind == "closed" else plan(scenario)
        member = cls(scenario, work, Composer(scenario))
        Endpoint.parse(scenario.target.url)
        member._log = log
        return member

    def begin(self, order: dict[str, Any]) -> None:
        """The coordinator says when time zero is and which part is ours."""
        self._index, self._count = order["index"], order["count"]
        self._zero_s = time.perf_counter() + (order["wall_s"] - time.time())
        self._composer.take_from(self._index, self._count)
        target = self.scenario.target
        client = Client(Endpoint.parse(target.url), self.now, target.timeout_s, target.verify_tls)
        self._lines, self._lag_rows, self._users = [], [], itertools.count()
        self._generator = Generator(
            self.scenario, self._composer, client, self.now, self._sink, self._index, self._most()
        )
        if self._plan is not None:
            self._mine = share(self._plan, self._index, self._count)
            self._generator.progress.planned = sum(len(one.turns) for one in self._mine)
        self._is_planned = False
        # What is here now stays; a full collection would stop the generator for a tenth of a second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 1000)
        # On a machine shared with the server the generator goes first, where that is allowed: it does
        # little, and what it does late looks like the server's fault.
        _schedule(os.SCHED_RR | os.SCHED_RESET_ON_FORK, 1)
        watch = LagWatch(self.now, self._lag_rows.append, self._index)
        self._watch = gevent.spawn(watch.run)
        gevent.spawn(self._end)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._zero_s

    def drive(self) -> None:
        """The work of a Locust user; returns when it has nothing more to send."""
        generator = self._generator
        if generator is None:
            return
        if self._plan is not None:
            if not self._is_planned:
                self._is_planned = True
                generator.drive_open(self._mine)
            return
        user = self._index + self._count * next(self._users)
        gevent.sleep(max(0.0, -self.now()))
        generator.drive_closed(user_plan(self.scenario, user))

    def report(self) -> dict[str, Any]:
        """The events since the last report."""
        lines, self._lines = self._lines, []
        rows = self._lag_rows[:]
        del self._lag_rows[: len(rows)]
        progress = self._generator.progress if self._generator else None
        return {
            "records": lines,
            "lag": rows,
            "progress": {
                name: getattr(progress, name)
                for name in ("planned", "sent", "done", "ok", "in_flight", "is_over")
            },
        }

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to report."""
        return self._generator is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._generator is not None and self._generator.progress.is_over

    def stop(self) -> None:
        """Give up unanswered requests."""
        generator = self._generator
        if generator is not None and not generator.progress.is_over:
            generator.cancel()
            generator.progress.is_over = True
        if self._watch is not None:
            self._watch.kill(block=False)
        _schedule(os.SCHED_OTHER, 0)

    # ---- inside ------------------------------------------------------------------------------------------

    def _most(self) -> int | None:
        """Our part of the requests that a closed loop may send."""
        most = self.scenario.max_requests
        if most is None or self._plan is not None:
            return None
        return most // self._count + (self._index < most % self._count)

    def _sink(self, record: Record) -> None:
        self._lines.append(record.as_line())
        self._log(record)

    def _end(self) -> None:
        """Watch for the end: all answered after the last send, or the drain is over."""
        generator, scenario = self._generator, self.scenario
        assert generator is not None  # noqa: S101 - `begin` made it
        last_s = scenario.duration_s
        while self.now() < last_s + scenario.drain_s:
            gevent.sleep(0.1)
            if generator.progress.is_over:
                return
            is_last_sent = generator.is_spent or generator.has_sent_all or self.now() >= last_s
            if is_last_sent and not generator.progress.in_flight and not generator.pending:
                break
        self.stop()


class Coordinator:
    """The run as a whole."""

    def __init__(self, scenario: Scenario, out: Path) -> None:
        self._scenario = scenario
        self._out = out
        self._folder: RunFolder | None = None
        self._progress: dict[str, dict[str, Any]] = {}
        self._count = 0
        self._zero_s = 0.0
        self._code = EXIT_OK
        self._scraper: subprocess.Popen[bytes] | None = None
        # The first run's folder is made at once: a name that cannot be used is said before anything starts.
        self._prepared: RunFolder | None = RunFolder.create(out, scenario)

    def begin(self, count: int) -> list[dict[str, Any]]:
        """A new run over `count` processes; returns the order for each."""
        folder = self._prepared or RunFolder.create(RunFolder.unused(self._out), self._scenario)
        self._prepared, self._folder = None, folder
        self._progress, self._count = {}, count
        lead_s = LEAD_S["one" if count == 1 else "several"]
        self._zero_s, wall_s = time.perf_counter() + lead_s, time.time() + lead_s
        folder.note(BEGUN, {"perf_counter_s": self._zero_s, "wall_s": wall_s, "processes": count})
        command = [sys.executable, "-P", "-m", "loadtests.generator.scrape", str(folder.path)]
        self._scraper = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        return [{"index": index, "count": count, "wall_s": wall_s} for index in range(count)]

    def collect(self, worker: str, report: dict[str, Any]) -> None:
        """Collect one process's report."""
        if self._folder is None:
            return
        self._folder.add_records(report["records"])
        self._folder.add_lag(report["lag"])
        self._progress[worker] = report["progress"]
        counts = {
            name: sum(one[name] or 0 for one in self._progress.values())
            for name in ("planned", "sent", "done", "ok", "in_flight")
        }
        self._folder.note(PROGRESS, {"t_s": self.now(), **counts})

    def now(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._zero_s

    @property
    def has_begun(self) -> bool:
        """Whether a run is in progress."""
        return self._folder is not None

    @property
    def is_over(self) -> bool:
        """Every process has said so, or it takes too long."""
        scenario = self._scenario
        if self.now() > scenario.duration_s + scenario.drain_s + GRACE_S:
            return True
        return len(self._progress) >= self._count and all(
            one["is_over"] for one in self._progress.values()
        )

    def users(self, workers: int) -> tuple[int, float]:
        """How many Locust users there must be, and how fast they come."""
        arrivals = self._scenario.arrivals
        if arrivals.kind == "closed":
            return arrivals.users, arrivals.spawn_per_s
        return workers, float(workers)

    def finish(self) -> int:
        """Make the summary and the report, once; returns the exit code."""
        if self._scraper is not None:
            self._scraper.terminate()
            self._scraper.wait(10)
            self._scraper = None
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()
            self._code = exit_code(finish(folder.path))
        return self._code


def _schedule(policy: int, priority: int) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(priority))
