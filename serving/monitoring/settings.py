"""A site's objectives, and the thresholds of its alerts."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from serving.config.base import FrozenConfig
from serving.telemetry.metrics import SECONDS


class MonitoringConfig(FrozenConfig):
    """Objectives and thresholds; everything has a default."""

    # ---- objectives, over 30 days, for each model --------------------------------------------------------
    # Share of requests that are answered to their end; what a client did wrong and 429 do not count.
    availability: float = Field(default=0.999, ge=0.5, lt=1)
    # Share of streams whose first bytes come within `ttft_s`, which is a bound of the histogram's buckets.
    ttft_share: float = Field(default=0.95, ge=0.5, lt=1)
    ttft_s: float = 2.5
    # Fewer requests in an alert's longer window say nothing: one failure at night wakes nobody.
    min_requests: int = Field(default=50, ge=0)

    # ---- thresholds --------------------------------------------------------------------------------------
    queue_length: int = Field(default=10, ge=0)
    busy_share: float = Field(default=0.05, gt=0, lt=1)
    retry_share: float = Field(default=0.1, gt=0, lt=1)
    kv_cache_use: float = Field(default=0.95, gt=0, lt=1)
    # How long a replica may take to start: loading the largest model from the slowest disk.
    start_s: float = Field(default=1800, ge=60)

    # ---- where things are --------------------------------------------------------------------------------
    # The scrape job of the gateways in Prometheus' configuration.
    job: str = Field(default="comptoir-gateway", pattern=r"^[A-Za-z0-9_./-]+$")
    # What runbook links begin with; the alert's name follows as an anchor.
    runbooks: str = "docs/monitoring.md"
    # All times are multiplied by this: 0.01 tries in seconds what takes minutes.
    pace: float = Field(default=1.0, gt=0, le=10)

    @model_validator(mode="after")
    def _is_measured(self) -> Self:
        if self.ttft_s not in SECONDS:
            bounds = ", ".join(f"{bound:g}" for bound in SECONDS)
            raise ValueError(f"ttft_s ({self.ttft_s:g}) must be one of {bounds}: a bucket's bound")
        return self

    def duration(self, seconds: float) -> str:
        """A time in PromQL's notation, at this pace."""
        return duration(seconds * self.pace)


_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))


def duration(seconds: float) -> str:
    """In the largest unit that fits without a rest: 300 is `5m`, 90 is `90s`."""
    milliseconds = max(1, round(seconds * 1000))
    size, unit = next(one for one in _UNITS if milliseconds % one[0] == 0)
    return f"{milliseconds // size}{unit}"
