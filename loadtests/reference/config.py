"""Options of the reference server, each once; the command line and `running` take them from here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from loadtests.reference.wayward import NAMES
from loadtests.simulation.queueing import BatchingModel
from serving.api import MODELS
from serving.config.base import FrozenConfig

Mode = Literal["fixed", "jitter", "stalls", "queue"]
DAY_MS = 86_400_000.0


class ReferenceConfig(FrozenConfig):
    """What it does and when."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=0, ge=0, le=65_535, description="0: a free one")
    model: str = Field(default="reference", description=f"what {MODELS} lists; any is answered")
    mode: Mode = Field(default="fixed", description="when tokens come")
    ttft_ms: float = Field(
        default=50.0, ge=0, le=DAY_MS, description="to the first token; in mode queue, of a prefill"
    )
    itl_ms: float = Field(
        default=10.0, ge=0, le=DAY_MS, description="between two tokens; in mode queue, of one alone"
    )
    seed: int = Field(default=1, ge=0, description="of the jitter, the errors and the breaks")
    jitter: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="mode jitter: standard deviation of every gap as a share of its mean; "
        "nothing is further off than three of them, nor than the mean",
    )
    stall_every: int = Field(
        default=10, ge=2, description="mode stalls: a pause before every N-th token of a request"
    )
    stall_ms: float = Field(
        default=200.0, ge=0, le=DAY_MS, description="mode stalls: the pause, beside the usual gap"
    )
    prefill_ms_per_token: float = Field(
        default=0.0, ge=0, le=DAY_MS, description="mode queue: added to ttft-ms"
    )
    replicas: int = Field(default=1, ge=1, le=4096, description="mode queue")
    slots: int = Field(default=64, ge=1, le=100_000, description="mode queue: of each replica")
    knee: float = Field(
        default=16.0, gt=0, description="mode queue: batch from which tokens come more slowly"
    )
    slope: float = Field(
        default=0.5, ge=0, description="mode queue: by what share, for each further `knee` requests"
    )
    freeze_at_s: float | None = Field(
        default=None, ge=0, description="stand still so many seconds after the start"
    )
    freeze_for_s: float = Field(default=1.0, gt=0, le=3600, description="for so many seconds")
    error_share: float = Field(default=0.0, ge=0, le=1, description="answered with status 500")
    break_share: float = Field(default=0.0, ge=0, le=1, description="answers cut off in the middle")
    end: str = Field(
        default="",
        description="how answers end wrongly: the word of a record, or one with a variant",
    )
    end_share: float = Field(default=1.0, ge=0, le=1, description="of the answers that end so")
    early_role: bool = Field(
        default=False, description="send a stream's empty first chunk at once, not with a token"
    )
    kv_tokens: int = Field(
        default=500_000, ge=1, description="tokens that make vllm:kv_cache_usage_perc 1"
    )
    keep: int = Field(default=200_000, ge=1, description="requests that /truth remembers")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.error_share + self.break_share + (self.end_share if self.end else 0) > 1:
            raise ValueError("error_share, break_share and end_share are more than 1 together")
        if self.end and self.end not in NAMES:
            raise ValueError(f"end: there is no '{self.end}'; there are: {', '.join(NAMES)}")
        return self

    @property
    def engine_model(self) -> BatchingModel:
        """The model of mode queue, also for predictions with loadtests.simulation.queueing."""
        return BatchingModel(
            slots=self.slots,
            prefill_base_s=self.ttft_ms / 1000,
            prefill_per_token_s=self.prefill_ms_per_token / 1000,
            itl_base_s=self.itl_ms / 1000,
            knee=self.knee,
            slope=self.slope,
        )
