"""Bounds on one request."""

from __future__ import annotations

from pydantic import Field

from serving.config.base import FrozenConfig


class RequestLimits(FrozenConfig):
    """Bounds on one request, checked before an engine sees it."""

    # Refuse what is otherwise left out of a request, because no engine knows it.
    strict: bool = False
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    # Of the bodies of all open requests together, in one gateway process.
    max_held_bytes: int = Field(default=1024**3, ge=64 * 1024**2)
    max_n: int = Field(default=16, ge=1, le=64)
    max_stop: int = Field(default=16, ge=1, le=64)
    max_output_tokens: int = Field(default=131_072, ge=1)
    max_inputs: int = Field(default=2048, ge=1)
    # Messages of a conversation, or items of a response's input.
    max_messages: int = Field(default=2048, ge=1, le=65_536)
    # Lists and objects in a body, whatever they stand for: reading each takes time.
    max_objects: int = Field(default=32_768, ge=16_384, le=1_000_000)
    max_images: int = Field(default=16, ge=0, le=1024)
    # Of all images of a request together, as they are when decoded.
    max_image_pixels: int = Field(default=33_554_432, ge=1)
