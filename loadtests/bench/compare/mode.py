"""`make bench`: measures each contender beside the baseline, cell by cell, round after round."""

from __future__ import annotations

from pathlib import Path

import psutil

from loadtests.bench import output
from loadtests.bench.bars import COMPARE_BARS, judge
from loadtests.bench.compare import picture, report
from loadtests.bench.compare.clients import ClientProcess
from loadtests.bench.compare.contenders import ENGINE_ARGS, MODEL
from loadtests.bench.compare.plan import ComparePlan
from loadtests.bench.compare.results import Results, bar_figures
from loadtests.bench.compare.turns import Turns
from loadtests.processes.child import raise_open_files_limit
from serving.catalogue import tiny
from serving.settings import ProcessSettings

OPEN_FILES = 4096


def run(plan: ComparePlan, *, strict: bool) -> int:
    """Measure, print, write, draw; the exit code."""
    raise_open_files_limit(OPEN_FILES)
    model = tiny.build(tiny.family(MODEL), ProcessSettings.load().cache_dir)
    client = ClientProcess(plan.clients, model)
    with client.child:
        turns = Turns(plan, client, model)
        turns.take_all()
    results = turns.results
    figures = bar_figures(results)
    for table in report.tables(results, plan.cells, plan.contenders):
        output.show_below(table)
    if disturbed := results.disturbed():
        print(f"\n{disturbed} bursts were disturbed by other processes of this machine")
    if results.texts:
        is_same = all(each.is_same for each in results.texts)
        print(f"\ntexts identical to vLLM's: {'yes' if is_same else 'NO'}")
    path = output.write("compare", {"plan": _described(plan), "bars": figures} | results.as_json())
    _draw(plan, results, path)
    code = output.conclude(judge(COMPARE_BARS, figures), strict=strict)
    print(f"\nwritten to {path}")
    for failure in results.failures:
        print(f"\nFAILED {failure}")
    return 1 if results.failures else code


def _described(plan: ComparePlan) -> dict[str, object]:
    return {
        "contenders": list(plan.contenders),
        "cells": [cell.name for cell in plan.cells],
        "clients": list(plan.clients),
        "rounds": plan.rounds,
        "paired": plan.paired,
        "burst_s": plan.burst_s,
        "engine_args": dict(ENGINE_ARGS),
    }


def _draw(plan: ComparePlan, results: Results, beside: Path) -> None:
    client = "vllm bench serve" if "vllm" in plan.clients else "our own"
    note = (
        f"tiny Qwen3, {picture.TOKENS} tokens per answer, streamed; the same engine arguments; "
        f"medians of {plan.bursts_in_all} bursts; client: {client}; {psutil.cpu_count()} cores, no GPU"
    )
    chart = picture.chart_of(results, plan.cells, plan.contenders, note)
    if chart is None:
        return
    paths = picture.draw(chart, beside)
    print("\ndrawn in " + " and ".join(map(str, paths)))
    if plan.picture is not None:
        picture.copy(paths, plan.picture)
        print(f"copied to {plan.picture}")
