"""The last minutes: the rate of arrivals, its trend, and the time that one request takes. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from serving.autoscaling.signals import Signals

# Ray asks about ten times a second; replicas report once.
SAMPLE_S = 1.0
# Arrivals are taken over the long window, so that noise starts no replicas; the short ones see a step at
# once, and count while a queue builds. So many standard deviations of chance (Poisson) are taken off them.
STEADY_WINDOW_S = 60.0
STEP_WINDOWS_S = (5.0, 10.0)
DOUBT = 1.0
BUSY_WINDOW_S = 30.0
RESIDENCE_WINDOW_S = 60.0
MIN_FINISHED = 5.0
# Requests that are over sooner are seldom seen open.
LEAST_RESIDENCE_S = 0.01
# While the work in hand changes by more than this share of what was finished, the two do not compare.
STEADY_SHARE = 0.3
# Rises are sought over so many times the span they are extrapolated over, in eight parts each; in less than
# two minutes nothing shows.
TREND_SPANS = (1.0, 2.0, 4.0)
TREND_LEAST_S = 120.0
TREND_PARTS = 8
# Below this ratio of a slope to its standard error, a rise is taken for noise; a step never reaches 5.48.
TREND_CERTAINTY = 5.5


@dataclass(frozen=True)
class Sample:
    """Sums since the first sample."""

    time_s: float
    # Requests that came, those that gateways hold included.
    offered: float = 0.0
    finished: float = 0.0
    # Requests being worked on, now and as an integral over time (request-seconds).
    busy: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True)
class History:
    """Samples of the last minutes, a second apart, oldest first."""

    samples: tuple[Sample, ...] = ()
    # By replica: requests that ever came to it and requests open in it, at the last sample.
    counters: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gateway_queue: float = 0.0

    @property
    def last_s(self) -> float:
        """Time of the last sample."""
        return self.samples[-1].time_s if self.samples else -math.inf

    @property
    def just_came(self) -> bool:
        """Whether a request came in the last second; short ones are seldom seen open."""
        return len(self.samples) > 1 and self.samples[-1].offered > self.samples[-2].offered

    def add(self, signals: Signals, now_s: float, keep_s: float) -> History:
        """The history with one more sample, the present, and without samples older than `keep_s`."""
        counters = {
            name: (replica.arrived_requests, replica.open_requests)
            for name, replica in signals.replicas.items()
            if replica.arrived_requests is not None
        }
        if not self.samples:
            return History((Sample(now_s, busy=signals.busy),), counters, signals.gateway_queue)
        last = self.samples[-1]
        came, finished = self._since(counters)
        if self.counters and counters:
            # Not after a sleep: what was held then came at some unknown time.
            came += signals.gateway_queue - self.gateway_queue
        sample = Sample(
            now_s,
            last.offered + came,
            last.finished + finished,
            signals.busy,
            last.busy_s + signals.busy * (now_s - last.time_s),
        )
        kept = self.samples[self._index(now_s - keep_s) :]
        return replace(
            self,
            samples=(*kept, sample),
            counters=counters,
            gateway_queue=signals.gateway_queue,
        )

    def _since(self, counters: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
        """Requests that came to the replicas since the last sample, and that they finished."""
        came = finished = 0.0
        for name, (arrived, still_open) in counters.items():
            # A replica that was not there before says nothing yet of what came since.
            arrived_before, open_before = self.counters.get(name, (arrived, still_open))
            new = max(0.0, arrived - arrived_before)
            came += new
            finished += max(0.0, new - (still_open - open_before))
        return came, finished

    def arrivals_per_s(self, *, at_once: bool) -> float | None:
        """Arrivals per second; None while unknown."""
        if not self.counters or self._span_s < min(STEP_WINDOWS_S):
            return None
        steady = self._rate(STEADY_WINDOW_S)
        if not at_once:
            return steady
        recent = [(self._rate(window_s), window_s) for window_s in STEP_WINDOWS_S]
        return max(steady, *(rate - DOUBT * math.sqrt(rate / over_s) for rate, over_s in recent))

    def rise_per_s(self, ahead_s: float) -> float:
        """The rise of the arrivals per second in `ahead_s`, where a rise is evident."""
        if not self.counters or ahead_s <= 0:
            return 0.0
        windows_s = {max(spans * ahead_s, TREND_LEAST_S) for spans in TREND_SPANS}
        slope = max(self._slope(window_s) for window_s in windows_s)
        # What comes lately is a mean, and as old as the middle of its window.
        return slope * (ahead_s + STEADY_WINDOW_S / 2)

    def residence_s(self) -> float | None:
        """Seconds that a request is worked on, by Little's law; None while unknown."""
        if not self.samples:
            return None
        last = self.samples[-1]
        first = self.samples[self._index(last.time_s - RESIDENCE_WINDOW_S)]
        finished = last.finished - first.finished
        if finished < max(MIN_FINISHED, abs(last.busy - first.busy) / STEADY_SHARE):
            return None
        return max((last.busy_s - first.busy_s) / finished, LEAST_RESIDENCE_S)

    def busy(self) -> float:
        """Requests being worked on, as a mean over half a minute."""
        last = self.samples[-1]
        first = self.samples[self._index(last.time_s - BUSY_WINDOW_S)]
        passed_s = last.time_s - first.time_s
        return (last.busy_s - first.busy_s) / passed_s if passed_s > 0 else last.busy

    @property
    def _span_s(self) -> float:
        return self.samples[-1].time_s - self.samples[0].time_s if self.samples else 0.0

    def _index(self, time_s: float) -> int:
        """The last sample that is not younger; the first where all are."""
        after = bisect_right(self.samples, time_s, key=lambda sample: sample.time_s)
        return max(0, after - 1)

    def _rate(self, window_s: float) -> float:
        window_s = min(window_s, self._span_s)
        now = self.samples[-1]
        return max(0.0, (now.offered - self._at(now.time_s - window_s)) / window_s)

    def _slope(self, window_s: float) -> float:
        """Growth of the arrivals per second, per second; 0 where it may be noise."""
        if window_s > self._span_s:
            return 0.0
        part_s = window_s / TREND_PARTS
        edges = [
            self._at(self.last_s - window_s + part_s * part) for part in range(TREND_PARTS + 1)
        ]
        slope, error = _fitted([(after - before) / part_s for before, after in pairwise(edges)])
        return slope / part_s if slope > TREND_CERTAINTY * error else 0.0

    def _at(self, time_s: float) -> float:
        """Arrivals up to that time, interpolated between two samples."""
        index = self._index(time_s)
        one = self.samples[index]
        other = self.samples[min(index + 1, len(self.samples) - 1)]
        if other.time_s <= one.time_s or time_s <= one.time_s:
            return one.offered
        share = (time_s - one.time_s) / (other.time_s - one.time_s)
        return one.offered + share * (other.offered - one.offered)


def _fitted(values: list[float]) -> tuple[float, float]:
    """Least squares over equally spaced values: rise per place, and its standard error."""
    places = len(values)
    middle = (places - 1) / 2
    mean = sum(values) / places
    spread = sum((place - middle) ** 2 for place in range(places))
    slope = sum((place - middle) * (v - mean) for place, v in enumerate(values)) / spread
    residual = sum((v - mean - slope * (place - middle)) ** 2 for place, v in enumerate(values))
    return slope, math.sqrt(residual / (places - 2) / spread)
