"""Checks the plan against the local stack: what two replicas carry, predicted from a sweep of one.

    python -m loadtests.checks.plan_real                    # about 40 minutes

Replicas on one machine take each other's CPU, which those of a plan do not. So their engines wait in every
step, as for a GPU (checks/autoscaling/paced.py): what a replica carries is its slots over time, and one more
replica is as many slots more.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtests.analysis.rate_search import Search
from loadtests.checks.stack import ChaosError, Stack, serve_config
from loadtests.commands.run_sweep import Hardware, sweep
from loadtests.generator.launch import run
from loadtests.plan.model import PlanConfig
from loadtests.plan.sources import capacities
from loadtests.plan.sweeps import Measured, parse_sweep
from loadtests.workload.scenario import Scenario
from serving.catalogue.catalogue import Catalogue
from serving.commands.output import run as run_command
from serving.config.base import validated
from serving.errors import ComptoirError

MODEL = "qwen3"
WITHIN = 0.15
INPUT, OUTPUT = 64, 16
SLOTS = 8
SLO_TTFT_MS = 150
WARM_S = 15.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Effort:
    """The effort of measuring: seconds per rate, precision of the search, first rate per replica."""

    duration_s: float
    precision: float
    low_per_s: float


def scenario(url: str, duration_s: float) -> Scenario:
    """Short chats whose first token may not take long."""
    kind = {
        "name": "chat",
        "model": MODEL,
        "input_tokens": INPUT,
        "output_tokens": OUTPUT,
        "slo": {"ttft_ms": SLO_TTFT_MS},
    }
    return Scenario.model_validate(
        {
            "name": "plan-real",
            "target": {"url": url, "tokenizers": {MODEL: f"tiny:{MODEL}"}},
            "classes": [kind],
            "arrivals": {"kind": "poisson", "rate_per_s": 1},
            "warmup_s": 3,
            "duration_s": duration_s,
        }
    )


def deployment(replicas: int) -> dict[str, Any]:
    """One model, and the gateway."""
    model = {
        "id": MODEL,
        "catalogue": f"tiny-{MODEL}",
        "kv_cache_gib": 0.25,
        "engine_args": {
            "max_model_len": 1024,
            "max_num_seqs": SLOTS,
            # With it, a step would be planned while the one before is waited for.
            "async_scheduling": False,
            "scheduler_cls": "loadtests.checks.autoscaling.paced.QuickScheduler",
        },
        "replicas": {"min": replicas, "max": replicas},
    }
    return serve_config({}, model)


async def _ready(stack: Stack, replicas: int) -> None:
    await stack.ready()
    await stack.whole(set(), replicas=replicas)


def measure(replicas: int, folder: Path, effort: Effort, out: Path | None) -> Measured:
    """The sweep of so many replicas, left in `out`.

    Raises:
        ChaosError: they do not start.
    """
    print(f"{replicas} replica{'s' if replicas > 1 else ''}:", flush=True)
    with Stack.of(deployment(replicas), folder / f"{replicas}.yaml", MODEL) as stack:
        asyncio.run(_ready(stack, replicas))
        load = scenario(stack.url, effort.duration_s)
        # The first requests of an engine are slower than all others, and would count for the first rate.
        run(load.model_copy(update={"duration_s": WARM_S}), folder / f"warm-{replicas}")
        found = sweep(
            load,
            (out or folder) / f"replicas-{replicas}",
            Search(effort.low_per_s * replicas, 1000.0, effort.precision, max_points=20),
            Hardware(gpu=None, gpus_per_replica=0, replicas=replicas),
            processes=1,
            say=lambda text: print(f"  {text}", flush=True),
        )
    return parse_sweep(found, f"the sweep of {replicas}")


def predicted(one: Measured) -> tuple[float, float, float]:
    """The plan's capacity of two replicas, from a sweep of one: for sure, probably, at most."""
    traffic = {
        "name": "chat",
        "share": 1,
        "model": MODEL,
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
    }
    document = {"rate_per_s": 1, "traffic": [traffic], "site": {"eur_per_gpu_hour": {"cpu": 1.0}}}
    plan = validated(PlanConfig, document, "plan")
    nothing = Catalogue(models={}, licences={})
    capacity = capacities(plan, [one], nothing, measured_only=True)["chat"]
    return (
        capacity.rate_per_s(2, "low"),
        capacity.rate_per_s(2, "typical"),
        capacity.rate_per_s(2, "high"),
    )


@app.command()
def plan_real(
    duration: Annotated[float, typer.Option(min=2, help="Seconds of each rate.")] = 120.0,
    precision: Annotated[
        float, typer.Option(min=0.01, max=1, help="Precision of the rate: 0.05 is 5 %.")
    ] = 0.05,
    low: Annotated[
        float, typer.Option(min=1e-3, help="The first rate, per replica and second.")
    ] = 10.0,
    out: Annotated[
        Path | None, typer.Option(help="Where the sweeps are left. Default: nowhere.")
    ] = None,
) -> None:
    """Check a plan against the local stack: what two replicas carry, predicted from a sweep of one.

    Ends with 1 when it is off by more than 15 %, with 2 when nothing could be measured.

    Example: python -m loadtests.checks.plan_real --duration 60 --out runs/plan
    """
    effort = Effort(duration, precision, low)
    try:
        with tempfile.TemporaryDirectory(prefix="comptoir-plan-") as folder:
            one = measure(1, Path(folder), effort, out)
            two = measure(2, Path(folder), effort, out)
    except (ChaosError, ComptoirError) as error:
        print(f"plan_real: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    sure, probably, most = predicted(one)
    off = probably / two.likely_per_s - 1
    print(
        f"one replica: {one.held_per_s:.2f}/s confirmed, {one.likely_per_s:.2f}/s likely\n"
        f"two, predicted from it: {probably:.2f}/s ({sure:.2f} to {most:.2f})\n"
        f"two, measured: {two.held_per_s:.2f}/s confirmed, {two.likely_per_s:.2f}/s likely\n"
        f"off by {100 * off:+.1f} %; the bar is {100 * WITHIN:.0f} %"
    )
    raise typer.Exit(0 if abs(off) <= WITHIN else 1)


if __name__ == "__main__":
    run_command(app)
