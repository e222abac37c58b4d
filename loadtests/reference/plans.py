"""When the tokens of a request are due, decided when it arrives: one function for each mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from loadtests.reference.config import Mode, ReferenceConfig
from loadtests.simulation.queueing import ReplicaSet

DEVIATIONS = 3.0


class Plan(NamedTuple):
    """Seconds of the clock that the arrival was given in."""

    start_s: float
    due_s: list[float]


# From the arrival, the number of input tokens and the number of output tokens.
Planner = Callable[[float, int, int], Plan]


def planner(config: ReferenceConfig) -> Planner:
    """The plans of a mode; requests must be given in the order of their arrival."""
    return MODES[config.mode](config)


def _fixed(config: ReferenceConfig) -> Planner:
    ttft_s, itl_s = config.ttft_ms / 1000, config.itl_ms / 1000

    def plan(arrival_s: float, input_tokens: int, output_tokens: int) -> Plan:
        first_s = arrival_s + ttft_s
        return Plan(arrival_s, [first_s + itl_s * index for index in range(output_tokens)])

    return plan


def _jitter(config: ReferenceConfig) -> Planner:
    rng = np.random.default_rng(config.seed)
    # Cut evenly on both sides, so that the mean stays what was asked for.
    limit = min(DEVIATIONS, 1 / config.jitter) if config.jitter else DEVIATIONS

    def plan(arrival_s: float, input_tokens: int, output_tokens: int) -> Plan:
        drawn = rng.standard_normal(output_tokens)
        while (far := np.abs(drawn) > limit).any():
            drawn[far] = rng.standard_normal(int(far.sum()))
        means_s = np.full(output_tokens, config.itl_ms / 1000)
        means_s[0] = config.ttft_ms / 1000
        gaps_s = means_s * (1 + config.jitter * drawn)
        return Plan(arrival_s, (arrival_s + np.cumsum(gaps_s)).tolist())

    return plan


def _stalls(config: ReferenceConfig) -> Planner:
    ttft_s, itl_s, stall_s = config.ttft_ms / 1000, config.itl_ms / 1000, config.stall_ms / 1000

    def plan(arrival_s: float, input_tokens: int, output_tokens: int) -> Plan:
        gaps_s = [itl_s] * output_tokens
        gaps_s[0] = arrival_s + ttft_s
        every = config.stall_every
        for index in range(every - 1, output_tokens, every):
            gaps_s[index] += stall_s
        return Plan(arrival_s, list(accumulate(gaps_s)))

    return plan


def _queue(config: ReferenceConfig) -> Planner:
    # What it decides at the arrival stays: a client that leaves keeps its place to the planned end.
    replicas = ReplicaSet(config.engine_model, config.replicas)

    def plan(arrival_s: float, input_tokens: int, output_tokens: int) -> Plan:
        start_s, first_s, end_s = replicas.admit(arrival_s, input_tokens, output_tokens)
        itl_s = (end_s - first_s) / max(1, output_tokens - 1)
        return Plan(start_s, [first_s + itl_s * index for index in range(output_tokens)])

    return plan


MODES: Mapping[Mode, Callable[[ReferenceConfig], Planner]] = {
    "fixed": _fixed,
    "jitter": _jitter,
    "stalls": _stalls,
    "queue": _queue,
}
