"""`make chaos`: hit each kind of process under load; no request that had not begun may fail.

Examples:
    make chaos
    python -m loadtests.checks.chaos --only replica --workers 32
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loadtests.checks.chaos.faults import FAULTS, MODEL, Fault, Verdict, inject, judge
from loadtests.checks.chaos.load import Load, Outcome
from loadtests.checks.stack import ChaosError, Stack
from serving.commands.output import run as run_command
from serving.commands.output import show
from serving.errors import ConfigError

CONFIG = Path(__file__).parents[3] / "deployments" / "chaos.yaml"
# Before and after each fault, so that what it costs stands out.
CALM_S = 3.0
SCALE_DOWN = "scale down under long streams"
LONG_TOKENS = 1500
STREAM_TOKENS = 400

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


async def hit(fault: Fault, stack: Stack, load: Load) -> Verdict:
    """One fault under load, until the stack is whole again."""
    await asyncio.sleep(CALM_S)
    gone, at_s = inject(fault, stack)
    await stack.whole(gone)
    recovery_s = time.monotonic() - at_s
    await asyncio.sleep(CALM_S)
    return judge(fault, load.outcomes, at_s, recovery_s)


async def scale_down(stack: Stack) -> Verdict:
    """Take one of two replicas away while both stream."""
    load = Load(stack.url, MODEL, workers=0)
    async with load:
        streams = [
            asyncio.create_task(load.one(number, streamed=True, tokens=LONG_TOKENS))
            for number in range(8)
        ]
        await asyncio.sleep(CALM_S)
        at_s = time.monotonic()
        await stack.scale(1)
        await asyncio.gather(*streams)
        await stack.whole(set(), replicas=1)
    cut = [outcome for outcome in load.outcomes if outcome.fate != "answered"]
    return Verdict(
        SCALE_DOWN,
        len(load.outcomes),
        sum(outcome.fate == "not started" for outcome in cut),
        sum(outcome.fate == "broken, said so" for outcome in cut),
        sum(outcome.fate == "broken silently" for outcome in cut),
        len(cut),
        time.monotonic() - at_s,
        tuple(f"{outcome.fate}: {outcome.detail}" for outcome in cut[:5]),
    )


async def run(faults: list[Fault], *, scales: bool, workers: int) -> list[Verdict]:
    """Start the stack, break it in turn, stop it."""
    verdicts: list[Verdict] = []
    print("starting the stack of deployments/chaos.yaml", flush=True)
    with Stack(CONFIG, MODEL) as stack:
        await stack.ready()
        await stack.whole(set())
        for fault in faults:
            print(f"{fault.name} ...", flush=True)
            outcomes: list[Outcome] = []
            async with Load(
                stack.url,
                fault.model,
                workers=workers,
                stream_tokens=STREAM_TOKENS,
                outcomes=outcomes,
            ) as load:
                verdicts.append(await hit(fault, stack, load))
        if scales:
            print(f"{SCALE_DOWN} ...", flush=True)
            verdicts.append(await scale_down(stack))
    return verdicts


def print_verdicts(verdicts: list[Verdict]) -> None:
    """The table, and what went wrong."""
    table = Table("fault", "requests", "not started", "error event", "silent", "whole after", "")
    for verdict in verdicts:
        counts = (verdict.requests, verdict.not_started, verdict.said_so, verdict.silent)
        table.add_row(
            verdict.fault,
            *(str(count) for count in counts),
            f"{verdict.recovery_s:.1f} s",
            "holds" if verdict.holds else "BROKEN",
        )
    show(table)
    for verdict in verdicts:
        for detail in verdict.details:
            print(f"{verdict.fault}: {detail}")


@app.command()
def chaos(
    only: Annotated[
        str, typer.Option(help="Only faults whose name contains this word: engine, replica ...")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 12,
) -> None:
    """Hit each kind of process under load; no request that had not begun may fail.

    Ends with 1 when a fault cost more than it may, with 2 when nothing could be tried.

    Example: make chaos ARGS="--only replica --workers 32"
    """
    faults = [fault for fault in FAULTS if only in fault.name]
    scales = only in SCALE_DOWN
    if not faults and not scales:
        names = ", ".join(fault.name for fault in FAULTS)
        raise ConfigError(f"--only: '{only}' is in no fault; available: {names}, {SCALE_DOWN}")
    try:
        verdicts = asyncio.run(run(faults, scales=scales, workers=workers))
    except ChaosError as error:
        print(f"chaos: {error}")
        raise typer.Exit(2) from None
    print_verdicts(verdicts)
    raise typer.Exit(0 if all(verdict.holds for verdict in verdicts) else 1)


if __name__ == "__main__":
    run_command(app)
