"""Compares replica policies on simulated engines with prefix caches.

    python -m loadtests.simulation.compare_routing
    python -m loadtests.simulation.compare_routing --workload nothing-shared --gateways 4 --seeds 24

Every policy gets the same conversations; their next turns follow the answers, as people's do.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from loadtests.analysis.stats import percentile
from loadtests.simulation.routing.engines import Engine, SimRequest
from loadtests.simulation.routing.policies import CHOOSERS, Chooser, Sight, chooser
from loadtests.simulation.routing.workloads import WORKLOADS, Conversation, Workload
from serving.commands.output import note, run, say, show
from serving.config.replica_routing import ReplicaRoutingConfig
from serving.errors import ConfigError

REPORT_PERIOD_S = 0.5
ALL = "all"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Score:
    """The score of a policy: shares of all prompt tokens, seconds, busiest replica to the mean."""

    cached_share: float
    ttft_p50_s: float
    ttft_p99_s: float
    # Tokens that the busiest replica computed, relative to the mean.
    spread: float
    # Requests that did not go where most of their prompt was.
    spilt_share: float


class Simulation:
    """One workload under one policy, event by event."""

    def __init__(
        self, workload: Workload, policy: str, seed: int, config: ReplicaRoutingConfig
    ) -> None:
        self._workload = workload
        self._seed = seed
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now_s = 0.0
        self._open = workload.conversations
        names = [f"replica-{number}" for number in range(workload.replicas)]
        self._engines = {name: Engine(name, workload.engine) for name in names}
        self._gateways: list[tuple[Chooser, Counter[str]]] = [
            (chooser(policy, self._sight(number, config)), Counter())
            for number in range(workload.gateways)
        ]
        self.done: list[SimRequest] = []

    def run(self) -> list[SimRequest]:
        """Play it to the end; all requests in the order of their arrival."""
        starts = random.Random(self._seed)
        at_s = 0.0
        for number in range(self._workload.conversations):
            at_s += starts.expovariate(self._workload.starts_per_s)
            conversation = Conversation(self._workload, number, self._seed)
            self._at(at_s, partial(self._arrive, conversation))
        for index, engine in enumerate(self._engines.values()):
            first_s = REPORT_PERIOD_S * index / len(self._engines)
            self._at(first_s, partial(self._report, engine))
        while self._open:
            self._now_s, _, event = heapq.heappop(self._events)
            event()
        return sorted(self.done, key=lambda request: request.arrived_s)

    def _sight(self, number: int, config: ReplicaRoutingConfig) -> Sight:
        gateways = self._workload.gateways
        return Sight(
            self._engines, lambda: self._now_s, self._seed + number * 1000, config, gateways
        )

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), event))

    def _report(self, engine: Engine) -> None:
        engine.report(self._now_s)
        self._at(self._now_s + REPORT_PERIOD_S, partial(self._report, engine))

    def _arrive(self, conversation: Conversation) -> None:
        request = conversation.next()
        request.arrived_s = self._now_s
        policy, in_flight = self._gateways[request.gateway]
        replicas = [engine.as_replica() for engine in self._engines.values()]
        request.choice = policy.choose(request, replicas, in_flight)
        engine = self._engines[request.choice.replica.id]
        in_flight[engine.id] += 1
        engine.waiting.append(request)
        request.when_done = partial(self._finish, engine, request, conversation)
        self._start(engine)

    def _start(self, engine: Engine) -> None:
        request = engine.start_next(self._now_s)
        if request is not None:
            self._at(engine.prefill_ends_s, partial(self._first_token, engine, request))

    def _first_token(self, engine: Engine, request: SimRequest) -> None:
        engine.prefilling = None
        request.first_token_s = self._now_s
        self._gateways[request.gateway][0].began(request)
        self._at(self._now_s + engine.decode_s(request), request.when_done)
        self._start(engine)

    def _finish(self, engine: Engine, request: SimRequest, conversation: Conversation) -> None:
        engine.finish(request)
        policy, in_flight = self._gateways[request.gateway]
        in_flight[engine.id] -= 1
        policy.served(request)
        self.done.append(request)
        if conversation.is_over:
            self._open -= 1
        else:
            self._at(self._now_s + conversation.pause_s(), partial(self._arrive, conversation))
        self._start(engine)


def play(
    workload: Workload, policy: str, seed: int = 1, config: ReplicaRoutingConfig | None = None
) -> Score:
    """One workload under one policy."""
    done = Simulation(workload, policy, seed, config or ReplicaRoutingConfig()).run()
    ttfts = [request.ttft_s for request in done]
    computed: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for request in done:
        if request.choice is not None:
            computed[request.choice.replica.id] += request.prompt_tokens - request.cached_tokens
            reasons[request.choice.reason] += 1
    return Score(
        cached_share=sum(one.cached_tokens for one in done)
        / sum(one.prompt_tokens for one in done),
        ttft_p50_s=percentile(ttfts, 50),
        ttft_p99_s=percentile(ttfts, 99),
        spread=max(computed.values()) * workload.replicas / sum(computed.values()),
        spilt_share=reasons["spill"] / len(done),
    )


def p99_difference(workload: Workload, seeds: int) -> tuple[float, float]:
    """By which share `prefix` has a higher p99 TTFT than `least-loaded`: mean over seeds, and half of its
    95 % interval (normal approximation)."""
    ratios = [
        play(workload, "prefix", seed).ttft_p99_s / play(workload, "least-loaded", seed).ttft_p99_s
        for seed in range(1, seeds + 1)
    ]
    half = 1.96 * statistics.stdev(ratios) / math.sqrt(seeds)
    return statistics.mean(ratios) - 1, half


HEAD = ("workload", "policy", "cached", "TTFT p50", "TTFT p99", "spread", "spilt")


def row(workload: Workload, policy: str, score: Score) -> tuple[str, ...]:
    """One line of the table."""
    ttfts = (f"{score.ttft_p50_s * 1e3:.0f} ms", f"{score.ttft_p99_s * 1e3:.0f} ms")
    shares = (f"{score.spread:.2f}", f"{score.spilt_share:.1%}")
    return (workload.name, policy, f"{score.cached_share:.1%}", *ttfts, *shares)


@app.command()
def compare_routing(
    workload: Annotated[
        str, typer.Option(metavar="NAME", help=f"One of {', '.join(WORKLOADS)}, or all.")
    ] = ALL,
    gateways: Annotated[int, typer.Option(min=1, help="Gateways that share the requests.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals and the policies.")] = 1,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Compare only the p99 of prefix and least-loaded, over this number of seeds.",
        ),
    ] = None,
) -> None:
    """Compare replica policies on simulated engines with prefix caches.

    Example: python -m loadtests.simulation.compare_routing --workload nothing-shared --gateways 4 --seeds 24
    """
    if workload not in (*WORKLOADS, ALL):
        known = ", ".join(WORKLOADS)
        raise ConfigError(f"--workload: '{workload}' is unknown; known: {known}, {ALL}")
    names = WORKLOADS if workload == ALL else [workload]
    workloads = [replace(WORKLOADS[name], gateways=gateways) for name in names]
    if seeds is None:
        _show_scores(workloads, seed)
    else:
        _show_differences(workloads, seeds)


def _show_scores(workloads: Sequence[Workload], seed: int) -> None:
    table = Table(*HEAD, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for workload in workloads:
        for policy in CHOOSERS:
            note(f"{workload.name}: {policy} ...")
            table.add_row(*row(workload, policy, play(workload, policy, seed)))
    show(table)


def _show_differences(workloads: Sequence[Workload], seeds: int) -> None:
    for workload in workloads:
        mean, half = p99_difference(workload, seeds)
        say(
            f"{workload.name}: TTFT p99 of prefix against least-loaded, {seeds} seeds: "
            f"{mean:+.1%} ± {half:.1%}"
        )


if __name__ == "__main__":
    run(app)
