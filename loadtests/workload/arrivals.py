"""Send times of an open loop, drawn before the run. Pure: the same seed gives the same times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtests.workload.scenario import ArrivalsConfig

Times = NDArray[np.float64]


def send_times(arrivals: ArrivalsConfig, duration_s: float, random: np.random.Generator) -> Times:
    """Seconds from the run's begin, sorted, below `duration_s`.

    constant: every 1 / rate. poisson: independent of each other. gamma: gaps with the coefficient of
    variation `cv`, above 1 in bursts. ramp: Poisson at a rate that goes linearly from one to the other.
    steps: Poisson, one rate after another.

    Raises:
        ValueError: a closed loop and a trace have no such times.
    """
    match arrivals.kind:
        case "constant":
            count = int(np.floor(duration_s * arrivals.rate_per_s))
            return np.arange(count) / arrivals.rate_per_s
        case "poisson":
            return _poisson(arrivals.rate_per_s, 0.0, duration_s, random)
        case "gamma":
            return _gamma(arrivals.rate_per_s, arrivals.cv, duration_s, random)
        case "ramp":
            return _ramp(arrivals.rate_per_s, arrivals.to_per_s or 0.0, duration_s, random)
        case "steps":
            rates = arrivals.rates_per_s
            step_s = duration_s / len(rates)
            parts = [
                _poisson(rate, number * step_s, step_s, random) for number, rate in enumerate(rates)
            ]
            return np.concatenate(parts)
    raise ValueError(f"{arrivals.kind} has no times that could be drawn")


def _poisson(rate: float, since_s: float, duration_s: float, random: np.random.Generator) -> Times:
    """A Poisson process: given their number, arrivals are uniform."""
    count = random.poisson(rate * duration_s)
    return since_s + np.sort(random.random(count)) * duration_s


def _gamma(rate: float, cv: float, duration_s: float, random: np.random.Generator) -> Times:
    shape = 1.0 / cv**2
    times = np.empty(0)
    last_s = 0.0
    while last_s < duration_s:
        count = int((duration_s - last_s) * rate * 1.2) + 64
        more = last_s + np.cumsum(random.gamma(shape, 1.0 / (rate * shape), count))
        times = np.concatenate([times, more])
        last_s = float(times[-1])
    return times[times < duration_s]


def _ramp(first: float, last: float, duration_s: float, random: np.random.Generator) -> Times:
    """By thinning: Lewis and Shedler, "Simulation of nonhomogeneous Poisson processes by thinning" (1979)."""
    highest = max(first, last)
    times = _poisson(highest, 0.0, duration_s, random)
    rates = first + (last - first) * times / duration_s
    return times[random.random(times.size) * highest < rates]
