"""Loads over time, in multiples of one: a step, a ramp, a day, bursts, noise; and arrivals at them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Trace:
    """A load: multiples of the base rate by second."""

    name: str
    duration_s: float
    load: Callable[[float], float]
    # When the load steps up, where it does so once.
    step_s: float | None = None
    min_replicas: int = 1
    # Replicas that run at the beginning.
    start_replicas: int = 1

    def arrivals(self, base_per_s: float, seed: int) -> Iterator[float]:
        """Moments at which requests come: Poisson at the rate of each second, the same for every policy."""
        draw = random.Random(f"{self.name}/{seed}")
        peak_per_s = base_per_s * max(self.load(second) for second in range(int(self.duration_s)))
        now_s = draw.expovariate(peak_per_s)
        while now_s < self.duration_s:
            if draw.random() * peak_per_s <= base_per_s * self.load(now_s):
                yield now_s
            now_s += draw.expovariate(peak_per_s)


def step(before_s: float = 600.0, after_s: float = 1800.0, factor: float = 8.0) -> Trace:
    """Ten minutes of one, and then `factor` times as much from one moment to the next."""
    return Trace(
        "step", before_s + after_s, lambda t: factor if t >= before_s else 1.0, step_s=before_s
    )


def ramp(rise_s: float = 900.0, factor: float = 8.0) -> Trace:
    """Five minutes of one, a straight rise, and a quarter of an hour at the top."""

    def load(now_s: float) -> float:
        return 1.0 + (factor - 1.0) * min(max((now_s - 300.0) / rise_s, 0.0), 1.0)

    return Trace("ramp", 300.0 + rise_s + 900.0, load)


def diurnal(day_s: float = 4 * 3600.0, factor: float = 8.0) -> Trace:
    """A day in four hours: quiet nights, a morning rise, a peak in the afternoon."""

    def load(now_s: float) -> float:
        return 1.0 + (factor - 1.0) * (0.5 - 0.5 * math.cos(2 * math.pi * now_s / day_s)) ** 2

    return Trace("diurnal", day_s, load)


def burst(seed: int = 1) -> Trace:
    """Quiet, and now and then a minute and a half at five times the base."""
    draw = random.Random(seed)
    starts = [300.0]
    while starts[-1] < 5400.0:
        starts.append(starts[-1] + draw.uniform(240.0, 1200.0))

    def load(now_s: float) -> float:
        return 5.0 if any(start <= now_s < start + 90.0 for start in starts[:-1]) else 0.6

    return Trace("burst", 5400.0, load)


def noise(seed: int = 1, mean: float = 4.2, spread: float = 0.25) -> Trace:
    """An hour around one mean, which is no whole number of replicas; another level every five seconds."""
    draw = random.Random(seed)
    levels = [
        mean * math.exp(draw.gauss(-(spread**2) / 2, spread)) for _ in range(int(3600 / 5) + 1)
    ]
    return Trace("noise", 3600.0, lambda t: levels[int(t / 5)], start_replicas=5)


TRACES: dict[str, Callable[[], Trace]] = {
    "step": step,
    "ramp": ramp,
    "diurnal": diurnal,
    "burst": burst,
    "noise": noise,
}
