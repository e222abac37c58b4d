"""`make chaos`: hit each kind of process under load; no request that had not begun may fail.

Examples:
    make chaos
    python -m loadtests.checks.chaos --only replica --workers 32
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtests.checks.chaos.faults import FAULTS, MODEL, Fault, Verdict, inject, judge
from loadtests.checks.chaos.load import Load, Outcome
from loadtests.checks.stack import ChaosError, Stack

CONFIG = Path(__file__).parents[3] / "deployments" / "chaos.yaml"
# Before and after each fault, so that what it costs stands out.
CALM_S = 3.0
SCALE_DOWN = "scale down under long streams"
LONG_TOKENS = 1500
STREAM_TOKENS = 400

console = Console()


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
    console.print("starting the stack of deployments/chaos.yaml")
    with Stack(CONFIG, MODEL) as stack:
        await stack.ready()
        await stack.whole(set())
        for fault in faults:
            console.print(f"{fault.name} ...")
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
            console.print(f"{SCALE_DOWN} ...")
            verdicts.append(await scale_down(stack))
    return verdicts


def show(verdicts: list[Verdict]) -> None:
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
    console.print(table)
    for verdict in verdicts:
        for detail in verdict.details:
            console.print(f"{verdict.fault}: {detail}")


def main() -> int:
    """Returns 0 when every fault cost no more than it may, 1 otherwise, 2 when nothing could be tried."""
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="only faults whose name has this word (engine, replica ...)")
    parser.add_argument("--workers", type=int, default=12, help="requests in flight (12)")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if not options.only or options.only in fault.name]
    scales = not options.only or options.only in SCALE_DOWN
    if not faults and not scales:
        names = ", ".join(fault.name for fault in FAULTS)
        parser.error(f"--only {options.only}: no such fault; there are: {names}, {SCALE_DOWN}")
    try:
        verdicts = asyncio.run(run(faults, scales=scales, workers=options.workers))
    except ChaosError as error:
        console.print(f"chaos: {error}")
        return 2
    show(verdicts)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
