"""Options of the reference server, each once; the command line and `running` take them from here."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from loadtests.reference.wayward import NAMES
from loadtests.simulation.queueing import BatchingModel
from serving.api import MODELS
from serving.config.base import FrozenConfig

Mode = Literal["fixed", "jitter", "stalls", "queue"]
DAY_MS = 86_400_000.0


class ReferenceConfig(FrozenConfig):
    """The behaviour and timing of the reference server."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=0, ge=0, le=65_535, description="Port; 0 is a free one.")
    model: str = Field(
        default="reference", description=f"Name that {MODELS} lists; any is answered."
    )
    mode: Mode = Field(
        default="fixed", description=f"Times at which tokens come: {', '.join(get_args(Mode))}."
    )
    ttft_ms: float = Field(
        default=50.0,
        ge=0,
        le=DAY_MS,
        description="Milliseconds to the first token; in mode queue, of a prefill.",
    )
    itl_ms: float = Field(
        default=10.0,
        ge=0,
        le=DAY_MS,
        description="Milliseconds between two tokens; in mode queue, of a request alone.",
    )
    seed: int = Field(default=1, ge=0, description="Seed of the jitter, the errors and the breaks.")
    jitter: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Mode jitter: standard deviation of every gap as a share of its mean; "
        "no gap is further off than three of them, nor than the mean.",
    )
    stall_every: int = Field(
        default=10, ge=2, description="Mode stalls: a pause before every N-th token of a request."
    )
    stall_ms: float = Field(
        default=200.0,
        ge=0,
        le=DAY_MS,
        description="Mode stalls: milliseconds of the pause, beside the usual gap.",
    )
    prefill_ms_per_token: float = Field(
        default=0.0,
        ge=0,
        le=DAY_MS,
        description="Mode queue: milliseconds for each token of the prompt, added to ttft-ms.",
    )
    replicas: int = Field(default=1, ge=1, le=4096, description="Mode queue: number of replicas.")
    slots: int = Field(
        default=64, ge=1, le=100_000, description="Mode queue: slots of each replica."
    )
    knee: float = Field(
        default=16.0, gt=0, description="Mode queue: batch from which tokens come more slowly."
    )
    slope: float = Field(
        default=0.5,
        ge=0,
        description="Mode queue: by what share more slowly, for each further `knee` requests.",
    )
    freeze_at_s: float | None = Field(
        default=None,
        ge=0,
        description="Seconds from the start until it stands still; never by default.",
    )
    freeze_for_s: float = Field(
        default=1.0, gt=0, le=3600, description="Seconds that it stands still."
    )
    error_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of requests that are answered with status 500."
    )
    break_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of answers that are cut off in the middle."
    )
    end: str = Field(
        default="",
        description="Wrong end of answers: the word of a record, or one with a variant.",
    )
    end_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of the answers that end so."
    )
    early_role: bool = Field(
        default=False, description="Send a stream's empty first chunk at once, not with a token."
    )
    kv_tokens: int = Field(
        default=500_000, ge=1, description="Tokens that make vllm:kv_cache_usage_perc 1."
    )
    keep: int = Field(default=200_000, ge=1, description="Requests that /truth remembers.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.error_share + self.break_share + (self.end_share if self.end else 0) > 1:
            raise ValueError("error_share, break_share and end_share add up to more than 1")
        if self.end and self.end not in NAMES:
            raise ValueError(f"end: there is no '{self.end}'; available: {', '.join(NAMES)}")
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
