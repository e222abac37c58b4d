"""Checks the planner against simulated replicas: does it plan as many as are needed?

    nice python -m loadtests.checks.plan_bar --scenarios 200

Each scenario is a random engine, workload, SLO and demand. The planner sees what an operator sees: sweep.json
of one replica, found by the search of `comptoir load sweep`, and, where it says that measurements leave the
number open, of the number that it asks for. The truth is `true_replicas` of simulation/queueing.py, which the
planner never sees. The bar: the number is right in 95 % of the scenarios, and never short by more than one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track
from rich.table import Table

from loadtests.analysis.point import Point, backlog_grows
from loadtests.analysis.rate_search import Search, as_document
from loadtests.analysis.stats import effective_size, percentile, wilson_lower
from loadtests.plan.model import PlanConfig
from loadtests.plan.planner import outcome
from loadtests.plan.sources import capacities
from loadtests.plan.sweeps import Measured, parse_sweep
from loadtests.plan.uncertainty import unsettled
from loadtests.simulation.queueing import (
    WARMUP_SHARE,
    BatchingModel,
    Sample,
    attainment,
    good,
    max_rate,
    simulate,
    true_replicas,
)
from loadtests.workload.scenario import SloConfig, TokensConfig
from serving.catalogue.catalogue import Catalogue
from serving.commands.output import errors, show
from serving.commands.output import run as run_command
from serving.config.base import validated

BAR_SHARE, BAR_SHORT = 0.95, 1
# How much more often than the target idle replicas must keep an SLO.
FEASIBLE = 0.02
EMPTY = Catalogue(models={}, licences={})

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Case:
    """One scenario, with what only the simulation knows."""

    model: BatchingModel
    slo: SloConfig
    input_tokens: TokensConfig
    output_tokens: TokensConfig
    rate_per_s: float
    seed: int


@dataclass(frozen=True)
class Verdict:
    """The planned and the needed number; `sweeps` are the measured numbers of replicas."""

    planned: int
    true: int
    sweeps: tuple[int, ...]

    @property
    def difference(self) -> int:
        """Negative: too few."""
        return self.planned - self.true


@dataclass(frozen=True)
class Effort:
    """The effort of measuring: requests per point, precision of the search, sweeps at most; and the truth."""

    requests: int = 50_000
    precision: float = 0.01
    sweeps: int = 4
    true_requests: int = 150_000


def cases(count: int, seed: int, most_replicas: float = 8.0) -> Iterator[Case]:
    """Random engines, workloads and SLOs, and a demand of up to so many times what one replica carries."""
    rng = random.Random(seed)
    made = 0
    while made < count:
        slots = rng.choice((16, 32, 64, 128))
        model = BatchingModel(
            slots=slots,
            prefill_base_s=rng.uniform(0.01, 0.05),
            prefill_per_token_s=rng.uniform(0.00005, 0.0003),
            itl_base_s=rng.uniform(0.008, 0.03),
            knee=slots * rng.choice((0.25, 0.5, 1.0)),
            slope=rng.uniform(0.2, 0.9),
        )
        inputs = TokensConfig(mean=rng.choice((128, 512, 1024, 2048)), cv=rng.uniform(0, 1))
        outputs = TokensConfig(mean=rng.choice((32, 128, 256, 512)), cv=rng.uniform(0, 1))
        slo = _slo(rng, model, inputs, outputs)
        sample = Sample.draw(inputs, outputs, made + 1, 4000)
        wanted = rng.uniform(0.5, most_replicas)
        # An SLO that idle replicas hardly keep is a mistake, not a plan: a sweep says so.
        idle = model.most_per_s(inputs.mean, outputs.mean) / 100
        if attainment(model, slo, idle, 1, sample) >= slo.target + FEASIBLE:
            alone = max_rate(model, slo, 1, inputs, outputs, seed=made + 1, requests=4000)
            made += 1
            yield Case(model, slo, inputs, outputs, alone * wanted, seed=made)


def _slo(
    rng: random.Random, model: BatchingModel, inputs: TokensConfig, outputs: TokensConfig
) -> SloConfig:
    """Of first tokens, of these and gaps, or of the whole, from tight to loose: each bounds the waiting.

    One of gaps alone does not: it is kept while the queue grows, and only a growing backlog, which a short
    run does not show, ends it.
    """
    kind = rng.choice(("ttft", "both", "e2e"))
    limits: dict[str, float] = {}
    if kind in ("ttft", "both"):
        limits["ttft_ms"] = 1000 * model.prefill_s(inputs.mean) * rng.uniform(2, 6)
    if kind == "both":
        limits["tpot_ms"] = 1010 * model.itl_s(1 + rng.uniform(0.3, 0.9) * model.slots)
    if kind == "e2e":
        usual_s = model.prefill_s(inputs.mean) + outputs.mean * model.itl_s(0.6 * model.slots)
        limits["e2e_ms"] = 1000 * usual_s * rng.uniform(2, 3)
    return SloConfig(**limits)


# ---- measuring, as an operator does -------------------------------------------------------------------


def sweep(case: Case, replicas: int, low: float, high: float, effort: Effort) -> dict[str, Any]:
    """The result of `comptoir load sweep --replicas N --from LOW --to HIGH`: every point has new requests."""
    search = Search(low, high, effort.precision, max_points=60)
    points: list[Point] = []
    while (following := search.next_rate(points, case.slo.target)) is not None:
        rate, is_confirmation = following
        seed = case.seed * 100_003 + replicas * 1009 + len(points)
        points.append(
            _point(case, replicas, rate, seed, effort.requests, is_confirmation=is_confirmation)
        )
    about = {
        "scenario": "bar",
        "model": "bar",
        "hardware": {"gpu": None, "gpus_per_replica": 0, "replicas": replicas},
        "class": "bar",
        "input_tokens_mean": case.input_tokens.mean,
        "output_tokens_mean": case.output_tokens.mean,
    }
    return as_document(points, about, case.slo)


def _point(
    case: Case, replicas: int, rate: float, seed: int, requests: int, *, is_confirmation: bool
) -> Point:
    sample = Sample.draw(case.input_tokens, case.output_tokens, seed, requests)
    arrivals = np.cumsum(sample.gaps) / rate
    times = simulate(case.model, arrivals, sample.input_tokens, sample.output_tokens, replicas)
    first = int(requests * WARMUP_SHARE)
    kept = good(case.slo, arrivals, times, sample.output_tokens)[first:]
    total, held = len(kept), int(kept.sum())
    grows = backlog_grows(arrivals, times.end_s, float(arrivals[first]), float(arrivals[-1]))
    effective = effective_size(kept)
    low = wilson_lower(held * effective / total, effective)
    e2e_s = float(np.mean((times.end_s - arrivals)[first:]))
    return Point(
        rate_per_s=rate,
        requests=total,
        good=held,
        attainment=held / total,
        wilson_low=low,
        backlog_grows=grows,
        valid=True,
        passed=low >= case.slo.target and not grows,
        e2e_mean_s=e2e_s,
        ttft_p95_ms=percentile((times.first_token_s - arrivals)[first:], 95) * 1000,
        output_tokens_per_s=rate * float(sample.output_tokens.mean()),
        in_flight_mean=rate * e2e_s,
        is_confirmation=is_confirmation,
        effective=effective,
    )


# ---- planning -----------------------------------------------------------------------------------------


def judge(case: Case, effort: Effort) -> Verdict:
    """Measure one replica, plan, measure what the plan asks for, plan again."""
    config = _config(case)
    documents = [_first(case, effort)]
    while True:
        sweeps = _read(documents)
        known = capacities(config, sweeps, EMPTY, measured_only=True)
        now = outcome(config, known, {})
        asked = unsettled(config, known, now)
        if not asked or len(documents) >= effort.sweeps:
            break
        rate = asked[0].rate_per_s
        documents.append(sweep(case, asked[0].replicas, 0.9 * rate, 1.1 * rate, effort))
        if not documents[-1]["confirmed"]:
            documents.pop()
            break
    needed = true_replicas(
        case.model,
        case.slo,
        case.rate_per_s,
        case.input_tokens,
        case.output_tokens,
        case.seed,
        requests=effort.true_requests,
    )
    measured = tuple(one.replicas for one in sweeps)
    return Verdict(now.models[0].replicas.needed, needed, measured)


def _first(case: Case, effort: Effort) -> dict[str, Any]:
    """A sweep of one replica, from 1/s on, lower where that does not hold."""
    low = 1.0
    while True:
        document = sweep(case, 1, low, 10_000.0, effort)
        if document["confirmed"]:
            return document
        low /= 16


def _read(documents: Sequence[dict[str, Any]]) -> list[Measured]:
    return [parse_sweep(document, f"sweep {number}") for number, document in enumerate(documents)]


def _config(case: Case) -> PlanConfig:
    traffic = {
        "name": "bar",
        "share": 1,
        "model": "bar",
        "input_tokens": case.input_tokens.mean,
        "output_tokens": case.output_tokens.mean,
    }
    document = {
        "rate_per_s": case.rate_per_s,
        "utilisation": 1.0,
        "spares": 0,
        "traffic": [traffic],
        "site": {"eur_per_gpu_hour": {"cpu": 1.0}},
    }
    return validated(PlanConfig, document, "bar")


def run(
    count: int, seed: int, effort: Effort, watch: Callable[[Iterator[Case]], Iterable[Case]]
) -> list[Verdict]:
    """The verdicts of so many scenarios."""
    return [judge(case, effort) for case in watch(cases(count, seed))]


def share_right(verdicts: Sequence[Verdict]) -> float:
    """The share of scenarios in which the number is right."""
    return sum(one.difference == 0 for one in verdicts) / len(verdicts)


def holds(verdicts: Sequence[Verdict]) -> bool:
    """Whether the bar is met."""
    worst = min(one.difference for one in verdicts)
    return share_right(verdicts) >= BAR_SHARE and worst >= -BAR_SHORT


def histogram(verdicts: Sequence[Verdict]) -> Table:
    """How many scenarios were planned with so many replicas too few or too many."""
    made = Table("off by", "scenarios", "", box=None, pad_edge=False)
    for column in made.columns[:2]:
        column.justify = "right"
    counts = Counter(one.difference for one in verdicts)
    for difference, number in sorted(counts.items()):
        made.add_row(f"{difference:+d}", str(number), "#" * (60 * number // len(verdicts)))
    return made


@app.command()
def plan_bar(
    scenarios: Annotated[int, typer.Option(min=1, help="Number of random scenarios.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the scenarios.")] = 1,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a point.")] = Effort.requests,
    precision: Annotated[
        float, typer.Option(min=0, help="Precision of the rate: 0.01 is 1 %.")
    ] = Effort.precision,
    sweeps: Annotated[
        int, typer.Option(min=1, help="Sweeps of a scenario, at most.")
    ] = Effort.sweeps,
) -> None:
    """Check the planner against simulated replicas: does it plan as many as are needed?

    Ends with 1 when the bar is missed.

    Example: nice python -m loadtests.checks.plan_bar --scenarios 200
    """
    verdicts = run(
        scenarios,
        seed,
        Effort(requests, precision, sweeps),
        lambda some: track(some, "scenarios", total=scenarios, console=errors),
    )
    show(histogram(verdicts))
    measured = sum(len(one.sweeps) for one in verdicts) / len(verdicts)
    print(
        f"right: {share_right(verdicts):.1%} of {len(verdicts)}; needed 1 to "
        f"{max(one.true for one in verdicts)} replicas; {measured:.2f} sweeps a scenario"
    )
    print("the bar is met" if holds(verdicts) else "the bar is MISSED")
    raise typer.Exit(0 if holds(verdicts) else 1)


if __name__ == "__main__":
    run_command(app)
