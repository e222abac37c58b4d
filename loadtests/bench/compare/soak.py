"""`make bench ARGS=soak`: whether a process of Comptoir grows while streams come and go for minutes."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from loadtests.bench import output
from loadtests.bench.bars import SOAK_BARS, judge
from loadtests.bench.compare import server
from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.clients import ClientError, ClientProcess
from loadtests.bench.compare.contenders import COMPTOIR, CONTENDERS, MODEL
from loadtests.bench.compare.roles import role_of
from loadtests.bench.compare.server import Server
from loadtests.bench.tables import number, table
from loadtests.processes.child import ProcessError, raise_open_files_limit
from serving.catalogue import tiny
from serving.settings import ProcessSettings

# Ray's own processes are listed, not judged.
OURS = ("gateway", "replica", "engine")
SMALL_MIB = 20.0
FIRST_LOOK_S = 60.0
# Resident memory moves a little with the load: the middle of what was seen for so long counts.
LOOK_FOR_S = 30.0
OPEN_FILES = 4096
WAVES = 6


@dataclass(frozen=True)
class SoakPlan:
    """Duration, and number of concurrent streams."""

    minutes: float
    streams: int

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are sent in turn."""
        return (
            Cell(self.streams, 64),
            Cell(self.streams, 64, False),
            Cell(self.streams, 256),
            Cell(self.streams, 1),
        )

    @property
    def first_look_s(self) -> float:
        """When memory is looked at first: after a minute, sooner in a short soak."""
        return min(FIRST_LOOK_S, self.minutes * 60 / 4)


@dataclass(frozen=True)
class Process:
    """One process under watch."""

    pid: int
    role: str
    title: str


@dataclass
class Watch:
    """Resident memory of every process over time."""

    seen: dict[Process, list[tuple[float, float]]] = field(default_factory=dict)

    def look(self, processes: Sequence[psutil.Process], at_s: float) -> None:
        """Note the resident MiB of each."""
        for process in processes:
            try:
                command = process.cmdline()
                title = command[0].rpartition("/")[2] if command else process.name()
                key = Process(process.pid, role_of(command), title[:48])
                mib = process.memory_info().rss / 2**20
            except psutil.Error:
                continue
            self.seen.setdefault(key, []).append((at_s, mib))

    def growth(self, first_s: float) -> dict[Process, tuple[float, float]]:
        """Resident MiB of the processes that were there from first to last, early and at the end."""
        last_s = max((at_s for looks in self.seen.values() for at_s, _ in looks), default=0.0)
        found = {}
        for process, looks in self.seen.items():
            early = [mib for at_s, mib in looks if first_s <= at_s <= first_s + LOOK_FOR_S]
            late = [mib for at_s, mib in looks if at_s >= last_s - LOOK_FOR_S]
            if early and late:
                found[process] = (statistics.median(early), statistics.median(late))
        return found


def percent(early: float, late: float) -> float:
    """Growth in per cent."""
    return 100 * (late - early) / early


def worst(growth: Mapping[Process, tuple[float, float]]) -> dict[str, float]:
    """The growth of the process of ours that grew most."""
    grown = [percent(*mib) for process, mib in growth.items() if process.role in OURS]
    return {"growth_percent": max(grown)} if grown else {}


def run(plan: SoakPlan, *, strict: bool) -> int:
    """Load, watch, print, write; the exit code."""
    raise_open_files_limit(OPEN_FILES)
    model = tiny.build(tiny.family(MODEL), ProcessSettings.load().cache_dir)
    client = ClientProcess(["own"], model)
    watch = Watch()
    totals = {"requests": 0.0, "errors": 0.0}
    failure = None
    with client.child:
        try:
            client.wait_until_ready()
            print("starting Comptoir", flush=True)
            with server.running(CONTENDERS[COMPTOIR], model, secrets.token_urlsafe(32)) as comptoir:
                _soak(plan, client, comptoir, watch, totals)
        except (ProcessError, ClientError) as error:
            failure = str(error)
        except KeyboardInterrupt:
            failure = "interrupted before its time"
    growth = watch.growth(plan.first_look_s)
    figures = worst(growth) | totals
    rows = [
        [process.title, process.role, number(early), number(late), f"{percent(early, late):+.1f} %"]
        for process, (early, late) in sorted(growth.items(), key=lambda item: -item[1][1])
        if late >= SMALL_MIB
    ]
    head = [
        "resident memory, MiB",
        "role",
        f"after {plan.first_look_s:.0f} s",
        "at the end",
        "growth",
    ]
    output.show_below(table(head, rows, left=2))
    print(f"\n{totals['requests']:,.0f} requests, {totals['errors']:.0f} errors")
    looks = [
        {"pid": process.pid, "role": process.role, "title": process.title, "mib": seen}
        for process, seen in watch.seen.items()
    ]
    path = output.write("soak", {"plan": vars(plan), "figures": figures, "looks": looks})
    code = output.conclude(judge(SOAK_BARS, figures), strict=strict)
    print(f"\nwritten to {path}")
    if failure:
        print(f"\nFAILED {failure}")
    return 1 if failure else code


def _soak(
    plan: SoakPlan, client: ClientProcess, comptoir: Server, watch: Watch, totals: dict[str, float]
) -> None:
    began_s = time.monotonic()
    said_minute = -1
    number_of_burst = 0
    while (passed_s := time.monotonic() - began_s) < 60 * plan.minutes:
        cell = plan.cells[number_of_burst % len(plan.cells)]
        requests = WAVES * cell.streams
        figures = client.measure("own", comptoir.target, cell, f"soak {number_of_burst}", requests)
        watch.look(comptoir.child.tree(), time.monotonic() - began_s)
        totals["requests"] += requests
        totals["errors"] += figures["errors"]
        number_of_burst += 1
        if int(passed_s // 60) > said_minute:
            said_minute = int(passed_s // 60)
            left = output.clock(60 * plan.minutes - passed_s)
            print(
                f"[{output.clock(passed_s)}, {left} to go] {totals['requests']:,.0f} requests, "
                f"{totals['errors']:.0f} errors",
                flush=True,
            )
