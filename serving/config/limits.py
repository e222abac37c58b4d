"""Bounds on one request."""

from __future__ import annotations

from pydantic import Field

from serving.config.base import FrozenConfig


class RequestLimits(FrozenConfig):
    """Bounds on one request, checked before an engine sees it."""

    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    max_n: int = Field(default=4, ge=1, le=64)
    max_stop: int = Field(default=4, ge=1, le=64)
    max_output_tokens: int = Field(default=131_072, ge=1)
    max_inputs: int = Field(default=2048, ge=1)
