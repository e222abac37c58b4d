"""The bars: the figures that the data path is to reach, and whether it did. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Bar:
    """A figure and the bound that it is meant to keep; `aim` is better than the bar."""

    text: str
    figure: str
    bound: Literal["at least", "at most", "below", "above"]
    value: float
    unit: str = ""
    aim: float | None = None

    def is_met(self, measured: float) -> bool:
        """Whether a measured value keeps the bound; NaN never does."""
        if self.bound == "at least":
            return measured >= self.value
        if self.bound == "above":
            return measured > self.value
        return measured <= self.value if self.bound == "at most" else measured < self.value


@dataclass(frozen=True)
class Verdict:
    """A bar and its measured figure; None where this run did not measure it."""

    bar: Bar
    measured: float | None

    @property
    def is_met(self) -> bool:
        """Whether it was measured and keeps the bar."""
        return self.measured is not None and self.bar.is_met(self.measured)


NULL_BARS = (
    Bar("added latency, one request at a time, p50", "added_p50_ms", "at most", 1.5, "ms"),
    Bar("requests per second of one core", "requests_per_core_s", "at least", 1000),
    Bar("SSE chunks per second of one core", "chunks_per_core_s", "at least", 10_000, aim=16_000),
    Bar("errors and lost chunks", "errors", "at most", 0),
)
IDLE_BARS = (
    Bar("errors", "errors", "at most", 0),
    Bar("gateway memory per idle stream", "kib_per_stream", "at most", 40, "KiB"),
)
WORK_BARS = (Bar("longest stall that one request causes", "worst_stall_ms", "at most", 5, "ms"),)
UNREAD_BARS = (
    Bar("errors of the good client", "errors", "at most", 0),
    # The limit of the connection is 30 s by default.
    Bar("seconds until every slot is free", "free_after_s", "at most", 35, "s"),
    Bar("good client's TTFT p99, multiple of before", "ttft_p99_ratio", "at most", 2),
)
COMPARE_BARS = (
    Bar(
        "64 streams × 64 tokens: requests/s, multiple of vLLM's",
        "requests_ratio_64x64",
        "at least",
        0.85,
    ),
    Bar("the same: TTFT p50, multiple of vLLM's", "ttft_ratio_64x64", "at most", 1.2),
    Bar("1 stream: TTFT p50, more than vLLM's", "added_ttft_ms_1x64", "at most", 3, "ms"),
    Bar("1 stream: ITL p50, multiple of vLLM's", "itl_ratio_1x64", "at most", 1.05),
    Bar(
        "64 parallel × 64 tokens, not streamed: requests/s",
        "requests_ratio_64x64_whole",
        "at least",
        0.92,
    ),
    Bar(
        "64 parallel × 1 token, not streamed: requests/s",
        "requests_ratio_64x1_whole",
        "at least",
        0.75,
    ),
    Bar("64 parallel × 1 token, streamed: requests/s", "requests_ratio_64x1", "at least", 0.75),
    Bar("16 streams: requests/s, multiple of Ray's best path", "ray_lead_16x64", "above", 1),
    Bar("64 streams: requests/s, multiple of Ray's best path", "ray_lead_64x64", "above", 1),
    Bar("256 streams: requests/s, multiple of Ray's best path", "ray_lead_256x64", "above", 1),
    Bar("texts at temperature 0 that differ from vLLM's", "different_texts", "at most", 0),
    Bar("Comptoir's errors", "errors", "at most", 0),
)
SOAK_BARS = (
    Bar("growth of resident memory, the process that grew most", "growth_percent", "below", 3, "%"),
    Bar("errors", "errors", "at most", 0),
)


def judge(bars: Iterable[Bar], figures: Mapping[str, float]) -> list[Verdict]:
    """Compare figures with bars."""
    return [Verdict(bar, _known(figures.get(bar.figure))) for bar in bars]


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
