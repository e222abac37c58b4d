"""Configuration of prefill replicas: engines that compute long prompts for the model's own replicas."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from serving.config.autoscaling import AutoscalingConfig
from serving.config.base import FrozenConfig
from serving.config.engine_args import EngineArgs


class PrefillConfig(FrozenConfig):
    """The replicas that compute prompts: their number, the least length, and different arguments."""

    replicas: AutoscalingConfig = AutoscalingConfig()
    # Shorter prompts are computed where they are answered: a hand-over costs more than it saves.
    min_prompt_tokens: int = Field(default=2048, ge=1, le=10_000_000)
    engine_args: EngineArgs = Field(default_factory=dict)
    # vLLM's kv_connector_extra_config of NIXL, for both kinds of replicas.
    nixl: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _awake(self) -> Self:
        if self.replicas.min < 1:
            raise ValueError(
                "replicas.min must be 1 or more: nobody waits for a prefill replica that sleeps"
            )
        return self
