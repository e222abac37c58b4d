"""Interpolates between measured points, monotonically and in logarithms, and says where it may not. Pure.

Between points, a rate lies in what they allow together: it never rises when requests get longer, and never
falls faster than between the measured points. The middle of that band passes through every point, is exact
for power laws and a straight line between two points; its width is the uncertainty. (McShane's extension of
a Lipschitz function, "Extension of range of functions", 1934, one-sided.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

# Lengths of a run differ a little from those asked for: so close to a measured one is inside.
SLACK = math.log(1.05)


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """The rate at one length of requests."""

    input_tokens: float
    output_tokens: float
    rate_per_s: float

    @property
    def place(self) -> tuple[float, float]:
        """Logarithms of the lengths."""
        return math.log(self.input_tokens), math.log(self.output_tokens)


@dataclass(frozen=True, slots=True)
class Band:
    """What the measured points allow; `middle` is the geometric mean of its ends."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return math.sqrt(self.low * self.high)


def gap(points: Sequence[LengthPoint], input_tokens: float, output_tokens: float) -> str | None:
    """Which side no measured point bounds: "longer" or "shorter" requests; None inside the range."""
    at = math.log(input_tokens), math.log(output_tokens)
    if not any(_reaches(one.place, at) for one in points):
        return "longer"
    if not any(_reaches(at, one.place) for one in points):
        return "shorter"
    return None


def interpolate(points: Sequence[LengthPoint], input_tokens: float, output_tokens: float) -> Band:
    """The band of rates at a length inside the range (see `gap`)."""
    places, rates = _distinct(points)
    rates = _falling(places, rates)
    slopes = _slopes(places, rates)
    at = math.log(input_tokens), math.log(output_tokens)
    low = max(rate - _up(place, at, slopes) for place, rate in zip(places, rates, strict=True))
    high = min(rate + _up(at, place, slopes) for place, rate in zip(places, rates, strict=True))
    # Inside the range, rates lie between the slowest and the fastest that were measured.
    high = min(max(high, min(rates)), max(rates))
    low = min(max(low, min(rates)), high)
    return Band(math.exp(low), math.exp(high))


def along(points: Sequence[tuple[float, float]], at: float) -> float:
    """A rising curve through (x, y), straight in logarithms, held constant beyond its ends.

    Where y falls, it is kept at the highest value so far: noise, for what can only rise.
    """
    ordered = sorted(points)
    xs = [math.log(x) for x, _ in ordered]
    ys: list[float] = []
    for _, y in ordered:
        ys.append(max(math.log(y), ys[-1]) if ys else math.log(y))
    place = math.log(at)
    if place <= xs[0]:
        return math.exp(ys[0])
    for index in range(1, len(xs)):
        if place <= xs[index]:
            part = (place - xs[index - 1]) / (xs[index] - xs[index - 1])
            return math.exp(ys[index - 1] + part * (ys[index] - ys[index - 1]))
    return math.exp(ys[-1])


def _reaches(place: tuple[float, float], at: tuple[float, float]) -> bool:
    """Whether requests there are at least as long as here, in both lengths."""
    return all(one >= other - SLACK for one, other in zip(place, at, strict=True))


def _distinct(points: Sequence[LengthPoint]) -> tuple[list[tuple[float, float]], list[float]]:
    """Places and logarithms of rates; sweeps of one length are one, with the mean of their rates."""
    groups: list[list[LengthPoint]] = []
    for point in sorted(points, key=lambda one: one.place):
        for group in groups:
            if (
                max(abs(a - b) for a, b in zip(group[0].place, point.place, strict=True))
                < SLACK / 2
            ):
                group.append(point)
                break
        else:
            groups.append([point])
    rates = [sum(math.log(one.rate_per_s) for one in group) / len(group) for group in groups]
    return [group[0].place for group in groups], rates


def _falling(places: Sequence[tuple[float, float]], rates: Sequence[float]) -> list[float]:
    """Rates that do not rise with the length: where noise made one rise, the lower one counts for it."""
    return [
        min(
            rate
            for other, rate in zip(places, rates, strict=True)
            if other[0] <= place[0] and other[1] <= place[1]
        )
        for place in places
    ]


def _up(start: tuple[float, float], end: tuple[float, float], slopes: tuple[float, float]) -> float:
    """How far a rate can fall on the way: only the axes on which requests get longer count."""
    return sum(slope * max(0.0, b - a) for slope, a, b in zip(slopes, start, end, strict=True))


def _slopes(places: Sequence[tuple[float, float]], rates: Sequence[float]) -> tuple[float, float]:
    """How fast rates fall with either length, at most: the least that explains all points."""
    pairs = list(permutations(range(len(places)), 2))
    slopes = [0.0, 0.0]
    for axis in (0, 1):
        for i, j in pairs:
            step = places[j][axis] - places[i][axis]
            if step > 1e-9 and abs(places[j][1 - axis] - places[i][1 - axis]) < SLACK / 2:
                slopes[axis] = max(slopes[axis], (rates[i] - rates[j]) / step)
    stretch = 1.0
    for i, j in pairs:
        fall = rates[i] - rates[j]
        allowed = _up(places[i], places[j], (slopes[0], slopes[1]))
        if fall <= allowed + 1e-12:
            continue
        if allowed > 0:
            stretch = max(stretch, fall / allowed)
        else:
            # Nothing was measured along an axis alone: both share the fall.
            length = sum(max(0.0, places[j][axis] - places[i][axis]) for axis in (0, 1))
            slopes = [max(one, fall / max(length, 1e-9)) for one in slopes]
    return slopes[0] * stretch, slopes[1] * stretch
