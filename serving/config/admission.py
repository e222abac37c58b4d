"""Configuration of a busy model: its slots, waiting times, breakers and retries."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from serving.config.base import FrozenConfig

Priority = Literal["interactive", "standard", "batch"]
# Who goes first.
PRIORITIES: tuple[Priority, ...] = ("interactive", "standard", "batch")


class AdmissionConfig(FrozenConfig):
    """When a model counts as busy, and how requests wait for it."""

    # Requests that a replica has open at once, from all gateways together.
    max_open_per_replica: int = Field(default=256, ge=1, le=100_000)
    # What a replica is given however many requests its engine says it has waiting.
    min_open_per_replica: int = Field(default=64, ge=1, le=100_000)
    # Requests that may wait inside an engine; more wait in the gateway, where the order is fair.
    max_waiting_per_replica: int = Field(default=16, ge=1, le=100_000)
    # This share of the slots is kept from tenants that hold their share of them, once there are several.
    reserve_share: float = Field(default=0.1, ge=0, le=0.5)
    # Bounds of a model's queue in one gateway. Each priority class has a queue of its own.
    max_waiting: int = Field(default=1024, ge=0, le=100_000)
    max_waiting_per_tenant: int = Field(default=512, ge=1, le=100_000)
    # How long a request waits whose client names no deadline, and the longest that one may name.
    max_wait_s: float = Field(default=60.0, gt=0, le=3600)
    max_deadline_s: float = Field(default=600.0, ge=0.001, le=3600)
    # How often a stream that waits gets a sign of life.
    keep_alive_s: float = Field(default=10.0, ge=0.01, le=300)
    # What a token counts in the shares; 1 and 2 are the VTC paper's own values.
    input_weight: float = Field(default=1.0, ge=0, le=1000)
    output_weight: float = Field(default=2.0, ge=0, le=1000)
    # How long an answer is taken to be before any was measured.
    expected_output_tokens: float = Field(default=256.0, ge=0, le=1_000_000)
    # Of so many requests in a row at least one is of a lower class, if one waits.
    aging_dispatches: int = Field(default=20, ge=2, le=100_000)
    # Tenants whose counters are remembered while they have no request here, for each model and class.
    max_tenants: int = Field(default=1024, ge=1, le=1_000_000)
    # The longest `Retry-After`.
    max_retry_after_s: float = Field(default=60.0, ge=1, le=3600)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_open_per_replica > self.max_open_per_replica:
            raise ValueError(
                f"min_open_per_replica ({self.min_open_per_replica}) is larger than "
                f"max_open_per_replica ({self.max_open_per_replica})"
            )
        if not self.input_weight + self.output_weight:
            raise ValueError("input_weight and output_weight are both 0: nothing would count")
        return self


class BreakerConfig(FrozenConfig):
    """When a failing replica gets no requests, and for how long."""

    # It opens after so many failures in a row ...
    consecutive_failures: int = Field(default=5, ge=1, le=10_000)
    # ... or when this share of the requests of `window_s` failed, if there were `min_requests`.
    failure_share: float = Field(default=0.5, gt=0, le=1)
    min_requests: int = Field(default=20, ge=1, le=100_000)
    window_s: float = Field(default=10.0, gt=0, le=600)
    # The first time it stays open so long, then twice as long each time, at most `max_open_s`.
    open_s: float = Field(default=1.0, gt=0, le=600)
    max_open_s: float = Field(default=30.0, gt=0, le=3600)
    # By up to this share an open time is shortened at random, so that gateways do not probe together.
    jitter: float = Field(default=0.3, ge=0, le=1)
    # A probe that has not come back by then no longer keeps others from being tried.
    probe_timeout_s: float = Field(default=30.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.open_s > self.max_open_s:
            raise ValueError(f"open_s ({self.open_s:g}) is larger than max_open_s")
        return self


class RetryConfig(FrozenConfig):
    """How often a request that has not begun is given to another replica."""

    # Replicas that one request is sent to at most.
    max_attempts: int = Field(default=3, ge=1, le=16)
    # Retries over `window_s` are at most this share of its requests, and `min_per_s` beyond that.
    share: float = Field(default=0.2, ge=0, le=1)
    min_per_s: float = Field(default=1.0, ge=0, le=1000)
    window_s: float = Field(default=10.0, gt=0, le=600)
    # Ask a second replica when the first has not begun after so long; never by default.
    hedge_after_s: float | None = Field(default=None, gt=0, le=600)


class QuarantineConfig(FrozenConfig):
    """How long a request is kept from the engines that failed on two of them."""

    # 0: never.
    hold_s: float = Field(default=60.0, ge=0, le=3600)
    # Of each key, in each gateway; the oldest one makes room.
    max_per_tenant: int = Field(default=256, ge=1, le=100_000)
