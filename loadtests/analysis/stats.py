"""Statistics of the load tests: percentiles, Wilson's bound, bootstrap intervals, Little's law. Pure.

References: Hyndman and Fan, "Sample quantiles" (1996), type 7; Wilson, "Probable inference" (1927);
Künsch, "The jackknife and the bootstrap for general stationary observations" (1989); Little, "A proof
for the queuing formula L = λW" (1961).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PERCENTS = (50, 90, 95, 99)
# Bins of a bootstrap's histograms are this much wider one than the other: values are off by half of it.
BIN_RATIO = 1.0025
MAX_BINS = 8192
# Neighbours whose means are compared with each other, to see whether misses come in bursts.
BATCHES = 20
# Resamples worked on at once; it bounds memory.
CHUNK = 200


def percentile(values: Iterable[float], percent: float) -> float:
    """Percentile with linear interpolation between neighbours; NaN of nothing.

    Short lists are sorted by Python: it takes a tenth of the time that an array does.
    """
    if isinstance(values, np.ndarray):
        return float(np.percentile(values, percent)) if values.size else math.nan
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return low if low == high else low + (high - low) * (place - below)


def spread(values: Floats) -> dict[str, float] | None:
    """p50, p90, p95, p99, max and mean; None without values. NaN among the values is left out."""
    found = values[~np.isnan(values)]
    if not found.size:
        return None
    cuts = np.percentile(found, PERCENTS).tolist()
    names = [f"p{percent}" for percent in PERCENTS]
    return {
        **dict(zip(names, cuts, strict=True)),
        "max": float(found.max()),
        "mean": float(found.mean()),
    }


# ---- shares ------------------------------------------------------------------------------------------


def wilson_lower(good: float, total: float, confidence: float = 0.95) -> float:
    """One-sided lower bound of a share; 0 of nothing."""
    return _wilson(good, total, confidence, -1)


def wilson_upper(good: float, total: float, confidence: float = 0.95) -> float:
    """One-sided upper bound of a share; 1 of nothing."""
    return _wilson(good, total, confidence, 1)


def _wilson(good: float, total: float, confidence: float, side: int) -> float:
    if total <= 0:
        return 0.0 if side < 0 else 1.0
    # At the ends the bound is exact, and rounding must not push it past them.
    if (side < 0 and good == 0) or (side > 0 and good == total):
        return 0.0 if side < 0 else 1.0
    z = NormalDist().inv_cdf(confidence)
    share = good / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return min(1.0, max(0.0, (middle + side * half) / (1 + z * z / total)))


# ---- queues ------------------------------------------------------------------------------------------


def effective_size(kept: Floats, batches: int = BATCHES) -> float:
    """The number of independent values that tell as much of their mean as these zeros and ones, in order.

    The effective sample size by batch means (Law, "Simulation Modeling and Analysis", section 9.5): the mean
    of neighbours varies more between batches when misses come in bursts. Never more than there are.
    """
    total, share = float(len(kept)), float(np.mean(kept)) if len(kept) else 0.0
    if total < 2 * batches or share in (0.0, 1.0):
        return total
    parts = np.array_split(kept, batches)
    off = np.array([part.sum() - share * len(part) for part in parts])
    variance = batches / (batches - 1) * float((off**2).sum()) / total**2
    return float(np.clip(share * (1 - share) / variance, 1.0, total)) if variance else total


@dataclass(frozen=True, slots=True)
class LittlesLaw:
    """Requests in flight as measured, and as arrival rate times mean time in the system."""

    in_flight: float
    rate_x_e2e: float

    @property
    def off_by_share(self) -> float | None:
        """The distance of both, as a share of the measured figure; None without one."""
        if not self.in_flight:
            return None
        return abs(self.in_flight - self.rate_x_e2e) / self.in_flight


def occupancy(starts: Floats, ends: Floats, edges: Floats) -> Floats:
    """Mean number of intervals that are open, between each edge and the next; exact, n log n."""
    return (_area(starts, edges) - _area(ends, edges)) / np.diff(edges)


def _area(times: Floats, edges: Floats) -> Floats:
    """The integral of the number of `times` that have passed, between edges."""
    ordered = np.sort(times)
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    passed = np.searchsorted(ordered, edges)
    whole: Floats = np.diff(passed * edges - sums[passed])
    return whole


# ---- bootstrap ---------------------------------------------------------------------------------------


def resample_blocks(blocks: int, resamples: int, random: np.random.Generator) -> Floats:
    """The draws of each block in each resample, as rows of counts that sum to `blocks`."""
    shares = np.full(blocks, 1 / blocks)
    return random.multinomial(blocks, shares, size=resamples).astype(np.float64)


def resampled_sums(weights: Floats, values: Floats, block_of: NDArray[np.int64]) -> Floats:
    """The sum of `values` in each resample."""
    sums: Floats = weights @ np.bincount(block_of, values, minlength=weights.shape[1])
    return sums


def resampled_percentiles(
    weights: Floats, values: Floats, block_of: NDArray[np.int64], percents: Sequence[float]
) -> Floats:
    """Percentiles of each resample, one row for each; NaN where a resample has no value.

    Values are counted in narrow bins for each block, so that a resample costs as much with
    millions of values as with hundreds.
    """
    resamples, blocks = weights.shape
    if not values.size:
        return np.full((resamples, len(percents)), np.nan)
    bin_of, centres = _binned(values)
    flat = np.bincount(block_of * centres.size + bin_of, minlength=blocks * centres.size)
    counts = flat.reshape(blocks, centres.size).astype(np.float64)
    rows = [_percentiles(part @ counts, centres, percents) for part in _chunks(weights)]
    return np.concatenate(rows)


def interval(values: Floats, confidence: float = 0.95) -> tuple[float, float] | None:
    """The middle `confidence` of bootstrap results; None where too few of them are finite."""
    finite = values[np.isfinite(values)]
    if finite.size < max(2, values.size / 2):
        return None
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(finite, (tail, 100 - tail)).tolist()
    return low, high


def _binned(values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The bin of each value, and each bin's value: few distinct values are bins of their own."""
    positive = np.maximum(values, 1e-6)
    low, high = float(positive.min()), float(positive.max())
    count = min(MAX_BINS, math.ceil(math.log(high / low) / math.log(BIN_RATIO)) + 1)
    if count >= values.size:
        centres, places = np.unique(values, return_inverse=True)
        return places.astype(np.int64), centres
    step = math.log(high / low) / max(1, count - 1) or 1.0
    places = np.rint(np.log(positive / low) / step).astype(np.int64)
    return places, low * np.exp(step * np.arange(count))


def _percentiles(counts: Floats, centres: Floats, percents: Sequence[float]) -> Floats:
    """Percentiles of histograms, one row each."""
    passed = np.cumsum(counts, axis=1)
    total = passed[:, -1]
    found = np.empty((counts.shape[0], len(percents)))
    for column, percent in enumerate(percents):
        place = (total - 1) * percent / 100
        below, above = np.floor(place), np.minimum(np.floor(place) + 1, total - 1)
        # The bin in which the value with this rank lies: the first one that counts past it.
        low, high = (
            centres[np.minimum((passed <= rank[:, None]).sum(axis=1), centres.size - 1)]
            for rank in (below, above)
        )
        found[:, column] = np.where(total > 0, low + (high - low) * (place - below), np.nan)
    return found


def _chunks(weights: Floats) -> Iterable[Floats]:
    return (weights[start : start + CHUNK] for start in range(0, weights.shape[0], CHUNK))
