"""The command: `make hostile`, `python -m loadtests.hostile`."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loadtests.analysis.stats import percentile
from loadtests.hostile.case import Case
from loadtests.hostile.cases.everything import every_case
from loadtests.hostile.own import own_target
from loadtests.hostile.ready import unfit
from loadtests.hostile.run import Findings, run
from loadtests.hostile.target import Target
from loadtests.processes.child import raise_open_files_limit
from serving.commands import output

# What a good client may notice: its p99 TTFT times this, and its longest gap between two tokens.
TTFT_RATIO = 2.0
# Below this a ratio says nothing: it is the noise of two processes on one core.
TTFT_FLOOR_MS = 25.0
WORST_GAP_MS = 250.0
# By so much the good client's own process may be late.
LAG_MS = 50.0
# What the gateway may have gained over the generated requests.
MEMORY_RATIO = 1.05

console = Console()
app = typer.Typer(add_completion=False)


@app.command()
def hostile(
    url: Annotated[
        str | None,
        typer.Argument(help="An endpoint, http://HOST:PORT. Default: a gateway of its own."),
    ] = None,
    key_env: Annotated[
        str, typer.Option(help="The environment variable with the attacker's API key.")
    ] = "HOSTILE_KEY",
    other_key_env: Annotated[
        str, typer.Option(help="The environment variable with another tenant's API key.")
    ] = "HOSTILE_OTHER_KEY",
    model: Annotated[str, typer.Option(help="A chat model that both keys may use.")] = "qwen3",
    other_model: Annotated[str, typer.Option(help="A model that the attacker may not use.")] = "",
    cut: Annotated[
        float, typer.Option(min=1, help="The longest of the endpoint's own limits, in seconds.")
    ] = 90.0,
    requests: Annotated[int, typer.Option(min=0, help="Number of generated requests.")] = 10_000,
    seed: Annotated[
        int, typer.Option(help="Seed of the generated requests: the same seed, the same requests.")
    ] = 1,
    only: Annotated[str, typer.Option(help="Only cases whose group/name contains this word.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="List the cases and exit.")] = False,
) -> None:
    """Attack an endpoint as a hostile client would, with a good client beside it.

    Exits with 1 when a case is broken or the good client notices something, with 2 when the endpoint does not
    answer or refuses the keys. Attack only what is yours.

    Example: make hostile ARGS="http://127.0.0.1:8000 --only slow"
    """
    cases = [case for case in every_case() if only in f"{case.group}/{case.name}"]
    if not cases:
        raise typer.BadParameter(
            "no case contains this word; --list shows them", param_hint="--only"
        )
    if list_:
        _list(cases)
        return
    raise_open_files_limit(8192)
    count = 0 if only else requests
    if url is None:
        with own_target() as own:
            found = _attack(own.target, cases, count, seed, own.gateway.pid)
    else:
        try:
            target = Target.at(
                url,
                model=model,
                key=os.environ.get(key_env, ""),
                other_key=os.environ.get(other_key_env, ""),
                other_model=other_model,
                cut_s=cut,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="URL") from None
        if (problem := unfit(target, key_env, other_key_env)) is not None:
            typer.echo(f"error: {problem}", err=True)
            raise typer.Exit(2)
        found = _attack(target, cases, count, seed, None)
    raise typer.Exit(0 if show(found) else 1)


def _attack(target: Target, cases: list[Case], count: int, seed: int, pid: int | None) -> Findings:
    return asyncio.run(run(target, cases, count, seed, pid, lambda text: console.print(text)))


def _list(cases: list[Case]) -> None:
    table = Table("case", "what must hold", box=None, pad_edge=False)
    for case in cases:
        table.add_row(f"{case.group}/{case.name}", case.holds)
    output.show(table)


def show(found: Findings) -> bool:
    """Print the findings; return whether all cases hold."""
    broken = [verdict for verdict in found.verdicts if verdict.fault]
    skipped = [verdict for verdict in found.verdicts if verdict.skipped]
    for verdict in broken:
        console.print(f"BROKEN {verdict.case.group}/{verdict.case.name}: {verdict.fault}")
        console.print(f"       right: {verdict.case.holds}")
    for fault in found.fuzzed.faults[:20]:
        console.print(f"BROKEN {fault}")
    for name, one in found.attacked.items():
        console.print(
            f"good client during {name}: TTFT p99 {one['ttft_p99_ms']:.1f} ms, "
            f"longest gap {one['worst_gap_ms']:.0f} ms, its own lag {one['worst_lag_ms']:.0f} ms"
        )
    held = len(found.verdicts) - len(broken) - len(skipped)
    table = Table("", "bar", "measured", "", box=None, pad_edge=False)
    rows = [
        ("cases that hold", f"{len(found.verdicts) - len(skipped)}", f"{held}", not broken),
        *_generated(found),
        *_beside(found),
        *_memory(found),
    ]
    for name, bar, measured, is_met in rows:
        table.add_row(name, bar, measured, "yes" if is_met else "NO")
    output.show(table)
    return all(is_met for *_, is_met in rows)


Row = tuple[str, str, str, bool]


def _generated(found: Findings) -> list[Row]:
    statuses = found.fuzzed.statuses
    if not statuses:
        return []
    said = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    console.print(f"answers to generated requests: {said}")
    faults = len(found.fuzzed.faults)
    return [("generated requests with a 5xx of ours, or that hang", "0", str(faults), not faults)]


def _beside(found: Findings) -> list[Row]:
    """The good client's worst figures; a period in which its own process was late says nothing."""
    periods = {name: one for name, one in found.attacked.items() if one["requests"]}
    failed = int(sum(one["failed"] for one in periods.values()))
    rows: list[Row] = [("requests of the good client that failed", "0", f"{failed}", not failed)]
    fair = {name: one for name, one in periods.items() if one["worst_lag_ms"] <= LAG_MS}
    if len(fair) < len(periods):
        late = ", ".join(sorted(periods.keys() - fair.keys()))
        console.print(f"no core was left for the good client itself; not judged: {late}")
    if not fair:
        return [*rows, ("its times", "a core to itself", "none", False)]
    calm_ms = found.calm["ttft_p99_ms"]
    bar_ms = max(TTFT_FLOOR_MS, TTFT_RATIO * calm_ms)
    # Over the whole attack: two hundred requests that come in the same moment are answered in turn.
    ttfts_ms = [one for period in fair.values() for one in period["ttfts_ms"]]
    ttft_ms = percentile(ttfts_ms, 99) if ttfts_ms else math.nan
    stalled = max(fair, key=lambda name: fair[name]["worst_gap_ms"])
    gap_ms = fair[stalled]["worst_gap_ms"]
    rows.append(
        (
            f"its TTFT p99 over {len(ttfts_ms)} requests (alone {calm_ms:.1f} ms)",
            f"{bar_ms:.0f} ms",
            f"{ttft_ms:.1f} ms",
            not math.isnan(ttft_ms) and ttft_ms <= bar_ms,
        )
    )
    gap_bar = f"{WORST_GAP_MS:.0f} ms"
    rows.append(
        (f"its longest gap, in {stalled}", gap_bar, f"{gap_ms:.0f} ms", gap_ms <= WORST_GAP_MS)
    )
    return rows


def _memory(found: Findings) -> list[Row]:
    if len(found.memory) < 2:
        return []
    before, after = found.memory[0], found.memory[-1]
    bar = f"{before * MEMORY_RATIO:.0f} MiB"
    return [
        ("the gateway's memory afterwards", bar, f"{after:.0f} MiB", after <= before * MEMORY_RATIO)
    ]
