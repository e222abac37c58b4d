"""The reasons why a busy model refuses a request, and the messages for its client."""

from __future__ import annotations

from collections.abc import Mapping

from serving.config.routing import Failure
from serving.errors import RateLimitedError

_REFUSALS: Mapping[str, tuple[str, Failure]] = {
    "full": ("the model is busy and its queue is full; try again later", "saturated"),
    "tenant_full": (
        "the model is busy and too many of your requests wait for it already; try again later",
        "saturated",
    ),
    "displaced": (
        "the model is busy and its queue is full: this request made room for keys with fewer in it; "
        "try again later",
        "saturated",
    ),
    "held_full": (
        "no replica of the model answers now and too many requests wait for it; try again later",
        "saturated",
    ),
    "held_tenant_full": (
        "no replica of the model answers now and too many of your requests wait for it; try again later",
        "saturated",
    ),
    "held_displaced": (
        "no replica of the model answers now and too many requests wait for it, most of them yours; "
        "try again later",
        "saturated",
    ),
    "deadline": (
        "the model is busy: the request would not begin before its deadline; try again later",
        "deadline",
    ),
    "expired": ("the model is busy: the request's deadline passed while it waited", "deadline"),
}


class BusyError(RateLimitedError):
    """The model is busy and this request does not get a slot: 429 with Retry-After.

    `reason` is "full", "tenant_full", "displaced", "deadline" or "expired", or "held_full",
    "held_tenant_full" or "held_displaced" where no replica can be asked; `failure` is its name for fallbacks.
    """

    def __init__(self, reason: str, retry_after_s: float) -> None:
        message, self.failure = _REFUSALS[reason]
        self.reason = reason
        super().__init__(message, param="model", retry_after_s=retry_after_s)
