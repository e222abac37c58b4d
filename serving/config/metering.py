"""Configuration of metering: where a gateway writes down what requests cost, and how often it asks for it."""

from __future__ import annotations

from pydantic import Field

from serving.config.base import FrozenConfig
from serving.config.paths import AbsolutePath


class MeteringConfig(FrozenConfig):
    """What becomes of the replicas' bills."""

    # A folder; each gateway process has files of its own there. Without one, bills are counted only.
    journal: AbsolutePath | None = None
    # How often replicas are asked for what they could not say with an answer.
    collect_period_s: float = Field(default=1.0, ge=0.05, le=10)
