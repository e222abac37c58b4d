"""`make bench`: starts each contender in turn, measures every cell, stops it; round after round."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from loadtests.bench import output
from loadtests.bench.bars import COMPARE_BARS, judge
from loadtests.bench.compare import picture, report, server, texts
from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.clients import ClientError, ClientProcess
from loadtests.bench.compare.contenders import (
    BASELINE,
    COMPTOIR,
    CONTENDERS,
    ENGINE_ARGS,
    MODEL,
    Contender,
)
from loadtests.bench.compare.results import Results, bar_figures, is_disturbed, with_cpu
from loadtests.bench.compare.server import Server
from loadtests.bench.compare.usage import Usage, machine_speed
from loadtests.bench.processes import StartError, raise_open_files_limit
from serving.catalogue import tiny
from serving.settings import ProcessSettings

# What a start leaves to do in the background is over by then.
SETTLE_S = 3.0
OPEN_FILES = 4096
# A burst that was disturbed is repeated.
TRIES = 3
PAUSE_S = 5.0


@dataclass(frozen=True)
class ComparePlan:
    """What is compared, how often, with which clients."""

    contenders: Sequence[str]
    cells: Sequence[Cell]
    clients: Sequence[str]
    rounds: int
    burst_s: float = 5.0
    picture: Path | None = None

    @property
    def bursts(self) -> int:
        """Measurements of one contender in one round."""
        return sum(len(self.clients) if cell.stream else 1 for cell in self.cells)


class Run:
    """One comparison: what it knows while it goes on."""

    def __init__(self, plan: ComparePlan, client: ClientProcess, model: Path) -> None:
        self._plan = plan
        self._client = client
        self._model = model
        self._key = secrets.token_urlsafe(32)
        self._texts: dict[str, texts.Texts] = {}
        # By contender and cell: how many requests take about `burst_s`.
        self._requests: dict[tuple[str, str], int] = {}
        self._progress = output.Progress(plan.rounds * len(plan.contenders) * (plan.bursts + 1))
        self.results = Results()

    def measure_all(self) -> None:
        """Round after round; an interruption ends it early, and what there is stays."""
        try:
            self._progress.begin("starting the clients")
            self._client.wait_until_ready()
            for number in range(1, self._plan.rounds + 1):
                for name in self._plan.contenders:
                    self._take_turn(number, CONTENDERS[name])
        except KeyboardInterrupt:
            self.results.failures.append("interrupted: not everything was measured")

    def _take_turn(self, number: int, contender: Contender) -> None:
        prefix = f"round {number} of {self._plan.rounds}, {contender.title}"
        self._progress.begin(f"{prefix}: starting")
        done = 0
        try:
            with server.running(contender, self._model, self._key) as running:
                self._progress.done(f"{prefix}: answers after {running.started_in_s:.0f} s")
                done += 1
                self._prepare(contender, running)
                usage = Usage(running.child, self._client.child)
                for cell in self._plan.cells:
                    for client in self._client.for_cell(cell):
                        salt = f"{number}{client}{cell.name}"
                        line = self._measure(contender, running, usage, cell, client, salt)
                        self._progress.done(f"{prefix}: {line}")
                        done += 1
                resident = usage.resident_by_role()
        except (StartError, ClientError) as error:
            self.results.failures.append(f"{prefix}: {error}")
            self._progress.skip(self._plan.bursts + 1 - done, f"{prefix}: FAILED: {error}")
            return
        mib = {role: size / 2**20 for role, size in resident.items()}
        self.results.resident_mib.setdefault(contender.name, []).append(mib)
        seconds = self.results.started_in_s.setdefault(contender.name, [])
        seconds.append(running.started_in_s)

    def _prepare(self, contender: Contender, running: Server) -> None:
        """Compare texts when the machine has settled, and warm up with some of every cell."""
        time.sleep(SETTLE_S)
        if contender.name in (BASELINE, COMPTOIR):
            self._texts[contender.name] = texts.collect(running.target)
            if len(self._texts) == 2:
                found = texts.compare(self._texts[BASELINE], self._texts[COMPTOIR])
                self.results.texts.append(found)
                self._texts.clear()
        for cell in self._plan.cells:
            trial = self._client.measure(
                "own", running.target, cell, "warm-up", cell.trial_requests
            )
            count = cell.requests_for(trial["requests_per_s"], self._plan.burst_s)
            # The first round decides, so that all rounds do the same.
            self._requests.setdefault((contender.name, cell.name), count)

    def _measure(
        self,
        contender: Contender,
        running: Server,
        usage: Usage,
        cell: Cell,
        client: str,
        salt: str,
    ) -> str:
        figures = self._undisturbed(contender, running, usage, cell, client, salt)
        self.results.add(contender.name, cell, client, figures)
        errors = f", {figures['errors']:.0f} ERRORS" if figures["errors"] else ""
        if is_disturbed(figures):
            errors += f" (other processes took {figures['others_cores']:.2f} of a core)"
        first = f", TTFT p50 {figures['ttft_p50_ms']:.1f} ms" if "ttft_p50_ms" in figures else ""
        return f"{cell.name} ({client}): {figures['requests_per_s']:.1f} req/s{first}{errors}"

    def _undisturbed(
        self,
        contender: Contender,
        running: Server,
        usage: Usage,
        cell: Cell,
        client: str,
        salt: str,
    ) -> dict[str, float]:
        """One burst; another one if something else was busy on the machine. The quietest counts."""
        requests = self._requests[contender.name, cell.name]
        bursts: list[dict[str, float]] = []
        while not bursts or (len(bursts) < TRIES and is_disturbed(bursts[-1])):
            if bursts:
                time.sleep(PAUSE_S)
            speed = machine_speed()
            usage.begin()
            salt_of_try = f"{salt}{len(bursts)}"
            figures = self._client.measure(client, running.target, cell, salt_of_try, requests)
            used, others = usage.end()
            figures = with_cpu(figures, used) | {"others_cores": others}
            figures["machine_speed"] = (speed + machine_speed()) / 2
            bursts.append(figures)
        return min(bursts, key=lambda figures: figures["others_cores"])


def run(plan: ComparePlan, *, strict: bool) -> int:
    """Measure, print, write, draw; the exit code."""
    raise_open_files_limit(OPEN_FILES)
    model = tiny.build(tiny.family(MODEL), ProcessSettings.load().cache_dir)
    client = ClientProcess(plan.clients, model)
    with client.child:
        current = Run(plan, client, model)
        current.measure_all()
    results = current.results
    figures = bar_figures(results)
    print("\n" + report.tables(results, plan.cells, plan.contenders))
    slowest, fastest = results.speed_range()
    print(
        f"\nwhat one core of the machine gave between bursts: {slowest:.2f} to {fastest:.2f} of the "
        "median (differences between servers smaller than that mean little)"
    )
    if disturbed := results.disturbed():
        print(f"{disturbed} bursts were disturbed by other processes of this machine")
    if results.texts:
        is_same = all(each.is_same for each in results.texts)
        print(f"\ntexts identical to vLLM's: {'yes' if is_same else 'NO'}")
    content = {
        "plan": {
            "contenders": list(plan.contenders),
            "cells": [cell.name for cell in plan.cells],
            "clients": list(plan.clients),
            "rounds": plan.rounds,
            "burst_s": plan.burst_s,
            "engine_args": dict(ENGINE_ARGS),
        },
        "bars": figures,
    }
    path = output.write("compare", content | results.as_json())
    _draw(plan, results, path)
    code = output.conclude(judge(COMPARE_BARS, figures), strict=strict)
    print(f"\nwritten to {path}")
    for failure in results.failures:
        print(f"\nFAILED {failure}")
    return 1 if results.failures else code


def _draw(plan: ComparePlan, results: Results, beside: Path) -> None:
    note = (
        f"tiny Qwen3, {picture.TOKENS} tokens per answer, streamed; the same engine arguments; "
        f"medians of {plan.rounds} rounds; client: "
        + ("vllm bench serve" if "vllm" in plan.clients else "our own")
        + f"; {psutil.cpu_count()} cores, no GPU"
    )
    chart = picture.chart_of(results, plan.cells, plan.contenders, note)
    if chart is None:
        return
    paths = picture.draw(chart, beside)
    print("\ndrawn in " + " and ".join(map(str, paths)))
    if plan.picture is not None:
        picture.copy(paths, plan.picture)
        print(f"copied to {plan.picture}")
