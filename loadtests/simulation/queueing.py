"""Replicas of a continuous-batching engine as a queue: what becomes of each request, how much they carry.

All replicas share one first-come-first-served queue, whose head takes a place in the batch of the replica
that works on the fewest. Two simplifications, which keep a request's fate known at its arrival:
- its inter-token latency is that of the batch that it joins, itself counted, and stays so until its end.
  Alone in an engine it keeps the pace of a lone request when others join; they pay, it does not;
- a prefill delays no other prefill and no decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from loadtests.workload.scenario import SloConfig, TokensConfig
from serving.config.base import FrozenConfig
from serving.errors import ConfigError

Floats = npt.NDArray[np.float64]
Numbers = Sequence[float] | npt.NDArray[np.float64] | npt.NDArray[np.int64]

REQUESTS = 20_000
# A run must turn every place over so often, and its first quarter, in which the places fill, is not judged.
TURNS = 20
WARMUP_SHARE = 0.25
# Of what replicas carry at most: so little that requests do not meet.
LONELY_SHARE = 1e-6


class BatchingModel(FrozenConfig):
    """The abilities of one replica; the defaults are a small model on one GPU, in round numbers.

    `knee` is the batch up to which tokens come at the pace of a lone request. Above it, with `slope` 1,
    latency grows in proportion to the batch and throughput no longer; above 1 throughput falls, and what
    follows from a rate is then no longer certain to grow with it.
    """

    # Requests in the batch: vLLM's max_num_seqs.
    slots: int = Field(default=64, ge=1, le=100_000)
    prefill_base_s: float = Field(default=0.02, ge=0)
    prefill_per_token_s: float = Field(default=0.0001, ge=0)
    itl_base_s: float = Field(default=0.01, ge=0)
    knee: float = Field(default=16.0, gt=0)
    slope: float = Field(default=0.5, ge=0)

    def prefill_s(self, input_tokens: float) -> float:
        """Seconds from a place in the batch to the first token."""
        return self.prefill_base_s + self.prefill_per_token_s * input_tokens

    def itl_s(self, batch: float) -> float:
        """Seconds between two tokens of a request in a batch of so many."""
        return self.itl_base_s * (1 + max(0.0, batch - self.knee) / self.knee * self.slope)

    def most_per_s(self, input_tokens: float, output_tokens: float) -> float:
        """Requests of so many tokens on average that one replica ends in a second, at its best batch."""

        def rate_per_s(batch: int) -> float:
            service_s = self.prefill_s(input_tokens) + (output_tokens - 1) * self.itl_s(batch)
            return batch / service_s if service_s else math.inf

        # Rising, and from the knee on rising or falling: the best is at one of the ends.
        knee = min(self.slots, max(1, math.floor(self.knee)))
        return max(rate_per_s(batch) for batch in {knee, min(knee + 1, self.slots), self.slots})


class ReplicaSet:
    """Replicas and their queue, one request after another in the order of arrival."""

    def __init__(self, model: BatchingModel, replicas: int) -> None:
        if replicas < 1:
            raise ConfigError(f"replicas: must be at least 1, not {replicas}", param="replicas")
        self._base_s, self._per_token_s = model.prefill_base_s, model.prefill_per_token_s
        self._itl_s = [model.itl_s(batch) for batch in range(model.slots + 1)]
        self._places = model.slots * replicas
        self._running = [0] * replicas
        self._ends: list[tuple[float, int]] = []
        self._last_start_s = -math.inf

    def admit(
        self, arrival_s: float, input_tokens: float, output_tokens: float
    ) -> tuple[float, float, float]:
        """When the next request gets its place, its first token and its last; arrivals never go back."""
        ends, running = self._ends, self._running
        # Nobody overtakes, not even where several places become free at once.
        start_s = max(arrival_s, self._last_start_s)
        if len(ends) == self._places and ends[0][0] > start_s:
            start_s = ends[0][0]
        while ends and ends[0][0] <= start_s:
            running[heappop(ends)[1]] -= 1
        batch = min(running)
        replica = running.index(batch)
        running[replica] = batch + 1
        first_s = start_s + self._base_s + self._per_token_s * input_tokens
        end_s = first_s + (output_tokens - 1) * self._itl_s[batch + 1]
        heappush(ends, (end_s, replica))
        self._last_start_s = start_s
        return start_s, first_s, end_s


class Simulated(NamedTuple):
    """Of each request, in seconds: when it left the queue, its first token, its last token."""

    start_s: Floats
    first_token_s: Floats
    end_s: Floats


def simulate(
    model: BatchingModel,
    arrivals_s: Numbers,
    input_tokens: Numbers,
    output_tokens: Numbers,
    replicas: int,
) -> Simulated:
    """What becomes of requests that arrive then, in this order.

    Raises:
        ConfigError: arrivals are not in order, or the three have different lengths.
    """
    arrivals = np.asarray(arrivals_s, dtype=np.float64)
    inputs = np.asarray(input_tokens, dtype=np.float64)
    outputs = np.asarray(output_tokens, dtype=np.float64)
    if not arrivals.shape == inputs.shape == outputs.shape:
        raise ConfigError("arrivals_s: as many are needed as token counts", param="arrivals_s")
    if arrivals.size and np.any(np.diff(arrivals) < 0):
        raise ConfigError("arrivals_s: must be in order; sort them first", param="arrivals_s")
    admit = ReplicaSet(model, replicas).admit
    rows = [
        admit(*request)
        for request in zip(arrivals.tolist(), inputs.tolist(), outputs.tolist(), strict=True)
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Simulated(columns[:, 0], columns[:, 1], columns[:, 2])


# ---- how much they carry ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Requests of no rate yet: `gaps` are exponential with a mean of one."""

    gaps: Floats
    input_tokens: Floats
    output_tokens: Floats

    @classmethod
    def draw(
        cls, input_tokens: TokensConfig, output_tokens: TokensConfig, seed: int, count: int
    ) -> Sample:
        """The same seed gives the same requests; a longer sample begins with the shorter one."""
        streams = np.random.SeedSequence(seed).spawn(3)
        gaps, inputs, outputs = (np.random.default_rng(stream) for stream in streams)
        return cls(
            gaps.exponential(size=count),
            draw_tokens(input_tokens, count, inputs),
            draw_tokens(output_tokens, count, outputs),
        )


def draw_tokens(tokens: TokensConfig, count: int, rng: np.random.Generator) -> Floats:
    """Token counts of a distribution: log-normal, rounded, cut at its ends."""
    drawn = rng.lognormal(*tokens.log_normal, count)
    return np.clip(np.rint(drawn), tokens.min, tokens.max).astype(np.float64)


def good(slo: SloConfig, arrivals_s: Floats, times: Simulated, output_tokens: Floats) -> Floats:
    """1 for each request that kept the SLO, 0 for the others. All gaps of a request are equal here."""
    ttft_s = times.first_token_s - arrivals_s
    gap_s = (times.end_s - times.first_token_s) / np.maximum(output_tokens - 1, 1)
    kept = np.ones(len(arrivals_s), dtype=bool)
    for limit_ms, seconds in (
        (slo.ttft_ms, ttft_s),
        (slo.itl_ms, gap_s),
        (slo.tpot_ms, gap_s),
        (slo.e2e_ms, times.end_s - arrivals_s),
    ):
        if limit_ms is not None:
            # A little room for rounding, where a limit is exactly what a lone request takes.
            kept &= seconds * 1000 <= limit_ms * (1 + 1e-9)
    return kept.astype(np.float64)


def attainment(
    model: BatchingModel, slo: SloConfig, rate_per_s: float, replicas: int, sample: Sample
) -> float:
    """The share of a sample that keeps the SLO when it comes at a rate; the warm-up is not judged."""
    arrivals = np.cumsum(sample.gaps) / rate_per_s
    times = simulate(model, arrivals, sample.input_tokens, sample.output_tokens, replicas)
    kept = good(slo, arrivals, times, sample.output_tokens)
    return float(np.mean(kept[int(len(kept) * WARMUP_SHARE) :]))


def max_rate(
    model: BatchingModel,
    slo: SloConfig,
    replicas: int,
    input_tokens: TokensConfig,
    output_tokens: TokensConfig,
    seed: int = 1,
    *,
    requests: int = REQUESTS,
    tolerance: float = 0.005,
) -> float:
    """λ*: the highest rate of Poisson arrivals, in requests per second, that keeps the SLO.

    0 where not even a lone request keeps it. Every rate is tried with the same requests, only closer to
    each other; `tolerance` is the relative width at which the bisection ends.
    """
    sample = _sample(model, replicas, input_tokens, output_tokens, seed, requests)
    most = replicas * _most_per_s(model, sample)
    if attainment(model, slo, most * LONELY_SHARE, replicas, sample) < slo.target:
        return 0.0
    # More than they carry is no rate for them, however long a run must be until it shows.
    if attainment(model, slo, most, replicas, sample) >= slo.target:
        return most
    low, high = 0.0, most
    while high - low > tolerance * high and high > most * LONELY_SHARE:
        middle = (low + high) / 2
        if attainment(model, slo, middle, replicas, sample) >= slo.target:
            low = middle
        else:
            high = middle
    return low


def true_replicas(
    model: BatchingModel,
    slo: SloConfig,
    rate_per_s: float,
    input_tokens: TokensConfig,
    output_tokens: TokensConfig,
    seed: int = 1,
    *,
    requests: int = REQUESTS,
    most: int = 4096,
) -> int:
    """The smallest number of replicas that keeps the SLO at a rate of Poisson arrivals.

    Raises:
        ConfigError: a lone request does not keep it, or more than `most` replicas would be needed.
    """

    def keeps(replicas: int) -> bool:
        sample = _sample(model, replicas, input_tokens, output_tokens, seed, requests)
        return attainment(model, slo, rate_per_s, replicas, sample) >= slo.target

    sample = _sample(model, 1, input_tokens, output_tokens, seed, requests)
    alone_per_s = _most_per_s(model, sample)
    if attainment(model, slo, alone_per_s * LONELY_SHARE, 1, sample) < slo.target:
        raise ConfigError("slo: not even a lone request keeps it; loosen it", param="slo")
    # With fewer the queue would grow without end. From there up in growing steps, then between them.
    fails, enough, step = math.ceil(rate_per_s / alone_per_s) - 1, 0, 1
    while not enough:
        tried = fails + step
        if tried > most:
            raise ConfigError(
                f"rate_per_s: {rate_per_s:g} needs more than {most} replicas", param="rate_per_s"
            )
        if keeps(tried):
            enough = tried
        else:
            fails, step = tried, step * 2
    while enough - fails > 1:
        middle = (fails + enough) // 2
        fails, enough = (fails, middle) if keeps(middle) else (middle, enough)
    return enough


def _sample(
    model: BatchingModel,
    replicas: int,
    input_tokens: TokensConfig,
    output_tokens: TokensConfig,
    seed: int,
    requests: int,
) -> Sample:
    count = max(requests, TURNS * model.slots * replicas)
    return Sample.draw(input_tokens, output_tokens, seed, count)


def _most_per_s(model: BatchingModel, sample: Sample) -> float:
    most = model.most_per_s(float(sample.input_tokens.mean()), float(sample.output_tokens.mean()))
    if math.isinf(most):
        raise ConfigError("prefill_base_s: a request must take some time", param="prefill_base_s")
    return most
