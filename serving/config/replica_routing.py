"""Configuration of replica routing: which policy picks a replica, and its bounds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serving.config.base import FrozenConfig

PolicyName = Literal["prefix", "least-loaded", "session"]


class ReplicaRoutingConfig(FrozenConfig):
    """Which replica of a model gets a request."""

    policy: PolicyName = "prefix"
    # prefix: what is hashed of a prompt, and how much is remembered, over all replicas of a policy.
    block_bytes: int = Field(default=1024, ge=64, le=65_536)
    max_prompt_bytes: int = Field(default=512 * 1024, ge=1024, le=16 * 1024 * 1024)
    max_entries: int = Field(default=100_000, ge=1000, le=10_000_000)
    # prefix: a replica with more than spill_ratio times the mean requests, and spill_requests more, is left.
    spill_ratio: float = Field(default=1.5, ge=1, le=100)
    spill_requests: float = Field(default=4.0, ge=0, le=10_000)
    # session: a replica takes at most 1 + epsilon times the mean load.
    epsilon: float = Field(default=0.25, gt=0, le=10)
