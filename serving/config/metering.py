"""Configuration of metering: the journal of bills, and the period of their collection."""

from __future__ import annotations

from pydantic import Field

from serving.config.base import FrozenConfig
from serving.config.paths import AbsolutePath


class MeteringConfig(FrozenConfig):
    """Collection and journal of the replicas' bills."""

    # A folder; each gateway process has files of its own there. Without one, bills are counted only.
    journal: AbsolutePath | None = None
    # How often replicas are asked for what they could not say with an answer.
    collect_period_s: float = Field(default=1.0, ge=0.05, le=10)
