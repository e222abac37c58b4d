"""The plan of a run: conversations drawn from a scenario beforehand. Pure except for reading a trace.

A request on its own is a conversation of one turn. Later turns have no time: they follow the answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loadtests.workload.arrivals import send_times
from loadtests.workload.scenario import ClassConfig, Scenario, TokensConfig
from loadtests.workload.traces import Trace, read_trace
from serving.errors import ConfigError

# Users of closed loops number their conversations apart from each other.
USER_STRIDE = 1_000_000
# Every generator process holds the whole plan: about half a kilobyte a request.
MOST_REQUESTS = 3_000_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: its place in the plan (-1 in a closed loop) and its lengths in tokens."""

    number: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """Requests that follow each other; `at_s` is the first one's time, `seed` decides its texts."""

    number: int
    class_name: str
    at_s: float
    turns: tuple[Turn, ...]
    seed: int
    block_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """An open loop, in the order of time; `left_out` requests of a trace had no answer."""

    conversations: tuple[Conversation, ...]
    left_out: int = 0

    @property
    def requests(self) -> int:
        """How many will be sent, if every answer comes in time for the next turn."""
        return sum(len(one.turns) for one in self.conversations)


def plan(scenario: Scenario) -> Plan:
    """Everything that an open loop sends; the same for the same scenario.

    Raises:
        ConfigError: a trace cannot be read, or there would be too much to plan.
        ValueError: a closed loop cannot be planned.
    """
    random = np.random.default_rng([scenario.seed, 0])
    if scenario.arrivals.kind == "trace":
        return _plan_trace(scenario, random)
    _refuse_too_many(scenario)
    times = send_times(scenario.arrivals, scenario.duration_s, random)
    if scenario.max_requests is not None:
        times = times[: scenario.max_requests]
    weights = np.array([one.weight for one in scenario.classes])
    picks = random.choice(len(weights), size=times.size, p=weights / weights.sum())
    numbers = itertools.count()
    drawn = (
        _conversation(index, scenario.classes[pick], float(at_s), scenario.seed, numbers, random)
        for index, (at_s, pick) in enumerate(zip(times, picks, strict=True))
    )
    return Plan(tuple(_first(drawn, scenario.max_requests)))


def share(work: Plan, index: int, count: int) -> Sequence[Conversation]:
    """One generator process's part: every `count`-th conversation."""
    return work.conversations[index::count]


def user_plan(scenario: Scenario, user: int) -> Iterator[Conversation]:
    """The conversations of one user of a closed loop, without end."""
    random = np.random.default_rng([scenario.seed, 1, user])
    weights = np.array([one.weight for one in scenario.classes])
    # A user stays what it is: classes are people, not moods.
    kind = scenario.classes[int(random.choice(len(weights), p=weights / weights.sum()))]
    for index in itertools.count(user * USER_STRIDE):
        yield _conversation(index, kind, 0.0, scenario.seed, itertools.repeat(-1), random)


def draw_tokens(tokens: TokensConfig, random: np.random.Generator) -> int:
    """A whole number, log-normal with the mean and the coefficient of variation, cut at the bounds."""
    value = tokens.mean
    if tokens.cv:
        value = random.lognormal(*tokens.log_normal)
    return max(1, min(tokens.max, max(tokens.min, round(value))))


def _refuse_too_many(scenario: Scenario) -> None:
    """By what is to be expected, before anything is drawn."""
    arrivals = scenario.arrivals
    rate = arrivals.rate_per_s
    if arrivals.kind == "ramp":
        rate = (rate + (arrivals.to_per_s or 0.0)) / 2
    elif arrivals.kind == "steps":
        rate = math.fsum(arrivals.rates_per_s) / len(arrivals.rates_per_s)
    weight = math.fsum(one.weight for one in scenario.classes)
    turns = math.fsum(one.weight * one.turns for one in scenario.classes) / weight
    expected = rate * scenario.duration_s * turns
    if expected > MOST_REQUESTS:
        raise ConfigError(
            f"duration_s: about {expected:.0f} requests would be planned, the most are "
            f"{MOST_REQUESTS}; lower it or the rate",
            param="duration_s",
        )


def _first(conversations: Iterable[Conversation], most: int | None) -> Iterator[Conversation]:
    """Those of the first `most` requests; the last of them ends where these do."""
    if most is None:
        yield from conversations
        return
    for one in conversations:
        yield one if len(one.turns) <= most else replace(one, turns=one.turns[:most])
        most -= len(one.turns)
        if most <= 0:
            return


def _conversation(
    index: int,
    kind: ClassConfig,
    at_s: float,
    seed: int,
    numbers: Iterator[int],
    random: np.random.Generator,
) -> Conversation:
    turns = tuple(
        Turn(
            next(numbers),
            draw_tokens(kind.input_tokens, random),
            0 if kind.kind == "embeddings" else draw_tokens(kind.output_tokens, random),
        )
        for _ in range(kind.turns)
    )
    return Conversation(index, kind.name, at_s, turns, seed * 1_000_003 + index)


def _plan_trace(scenario: Scenario, random: np.random.Generator) -> Plan:
    """Times and lengths are the trace's, models and tenants the classes'."""
    arrivals = scenario.arrivals
    trace: Trace = read_trace(
        Path(arrivals.trace or ""), arrivals.format, arrivals.speed, scenario.duration_s
    )
    weights = np.array([one.weight for one in scenario.classes])
    requests = trace.requests[: scenario.max_requests]
    picks = random.choice(len(weights), size=len(requests), p=weights / weights.sum())
    conversations = []
    for index, (one, pick) in enumerate(zip(requests, picks, strict=True)):
        kind = scenario.classes[pick]
        turn = Turn(
            index,
            min(one.input_tokens, kind.input_tokens.max),
            0 if kind.kind == "embeddings" else min(one.output_tokens, kind.output_tokens.max),
        )
        seed = scenario.seed * 1_000_003 + index
        conversations.append(Conversation(index, kind.name, one.at_s, (turn,), seed, one.block_ids))
    return Plan(tuple(conversations), trace.left_out)
