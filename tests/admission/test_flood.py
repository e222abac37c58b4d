"""A flood of one tenant in front of a simulated engine: what it costs another one."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from serving.admission.fair_queue import Refusal
from serving.admission.fair_shares import Entry
from tests.admission.fair import queue


class Line(Protocol):
    """A queue under test."""

    waiting: int
    slots: int

    def offer(self, entry: Entry, now: float) -> Refusal | None: ...
    def next(self, now: float) -> Entry | None: ...
    def finished(self, entry: Entry, prompt_tokens: int, output_tokens: int) -> None: ...


class FirstInFirstOut:
    """What the fair queue replaces."""

    def __init__(self) -> None:
        self._line: deque[Entry] = deque()
        self.slots, self._open = 0, 0

    @property
    def waiting(self) -> int:
        return len(self._line)

    def offer(self, entry: Entry, now: float) -> Refusal | None:
        if len(self._line) >= 512:
            return Refusal("full", 1.0)
        self._line.append(entry)
        return None

    def next(self, now: float) -> Entry | None:
        if not self._line or self._open >= self.slots:
            return None
        self._open += 1
        return self._line.popleft()

    def finished(self, entry: Entry, prompt_tokens: int, output_tokens: int) -> None:
        self._open -= 1


@dataclass(frozen=True)
class Request:
    tenant: str
    at_s: float
    output_tokens: int
    weight: float = 1.0


SLOTS, PREFILL_S, PER_TOKEN_S = 32, 0.2, 0.01
# 110 tokens on average: 1.3 s of a slot, so the engine does 24 requests per second.
MEAN_S = PREFILL_S + 110 * PER_TOKEN_S


def arrivals(tenant: str, per_s: float, seconds: float, seed: int, **fields: Any) -> list[Request]:
    """A Poisson process of requests with answers of 20 to 200 tokens."""
    source, now, found = random.Random(seed), 0.0, []
    while (now := now + source.expovariate(per_s)) < seconds:
        found.append(Request(tenant, now, source.randint(20, 200), **fields))
    return found


def simulate(line: Line, requests: Sequence[Request]) -> Iterator[tuple[Request, float, float]]:
    """An engine with so many slots, each request in one for the time of its answer.

    Yields each request that was served, with its time to the first token and to the last one, in seconds.
    """
    order = iter(range(10**9))
    events: list[tuple[float, int, Request, Entry | None]] = []
    for request in requests:
        heapq.heappush(events, (request.at_s, next(order), request, None))
    of_entry: dict[int, Request] = {}
    line.slots = SLOTS
    while events:
        now, _, request, done = heapq.heappop(events)
        if done is None:
            # Everyone says max_tokens 1000, as clients do.
            one = Entry(request.tenant, "standard", request.weight, 50, 1000)
            if line.offer(one, now) is None:
                of_entry[id(one)] = request
                # Kept alive by the queue, so that its id stays its own.
        else:
            line.finished(done, 50, request.output_tokens)
        while (one := line.next(now)) is not None:
            request = of_entry.pop(id(one))
            lasts_s = PREFILL_S + request.output_tokens * PER_TOKEN_S
            heapq.heappush(events, (now + lasts_s, next(order), request, one))
            waited_s = now - request.at_s
            yield request, waited_s + PREFILL_S, waited_s + lasts_s


def p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def times_of(tenant: str, line: Line, requests: Sequence[Request]) -> tuple[float, float]:
    """p99 of the time to the first token and to the last, of one tenant."""
    served = [one for one in simulate(line, requests) if one[0].tenant == tenant]
    return p99([first for _, first, _ in served]), p99([last for _, _, last in served])


A_PER_S = 6.0
ALONE = arrivals("a", A_PER_S, 200, seed=1)
FLOODED = ALONE + arrivals("b", 10 * A_PER_S, 200, seed=2)


def flood_ratio(make: Callable[[], Line]) -> tuple[float, float]:
    """By how much B's flood of ten times A's load stretches A's p99 to the first and to the last token."""
    alone, flooded = times_of("a", make(), ALONE), times_of("a", make(), FLOODED)
    return flooded[0] / alone[0], flooded[1] / alone[1]


def test_the_flood_is_one() -> None:
    assert A_PER_S * MEAN_S < SLOTS / 2 < SLOTS < 10 * A_PER_S * MEAN_S


def test_a_flood_of_ten_times_the_load_costs_another_tenant_little() -> None:
    """The bar: the other's p99 stays within 1.5 times its value alone."""
    first, last = flood_ratio(queue)
    assert first <= 1.5, first
    assert last <= 1.5, last


def test_without_fairness_the_flood_would_drown_the_other() -> None:
    first, last = flood_ratio(FirstInFirstOut)
    assert first > 1.5, first
    assert last > 1.5, last


def test_without_the_reserve_others_wait_for_an_answer_to_end() -> None:
    first, last = flood_ratio(lambda: queue(reserve_share=0.0))
    assert first > 1.5, first
    assert last <= 1.5, last


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_floods_get_no_more_than_their_weight(weight: float) -> None:
    requests = arrivals("a", 60, 100, seed=3, weight=weight) + arrivals("b", 60, 100, seed=4)
    tokens: Counter[str] = Counter()
    for request, first_s, _ in simulate(queue(), requests):
        # From when the queue is full until the arrivals end.
        if 20 < request.at_s + first_s < 100:
            tokens[request.tenant] += 50 + 2 * request.output_tokens
    assert tokens["a"] / tokens["b"] == pytest.approx(weight, rel=0.05)
