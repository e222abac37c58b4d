"""Fits a checked request to the model that answers it: what asks for more than that model has. Pure.

Agents ask every model for as many tokens, and for as much thinking, as their own vendor's models have; vLLM
refuses what is above the model's context, and a budget for thinking of a model that does not think.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

# Anthropic's least budget; a smaller one is refused.
MIN_BUDGET = 1024
# Fields that are looked at here, beside the limits of an answer.
FITTED = frozenset({"thinking", "thinking_token_budget"})


@dataclass(frozen=True, slots=True)
class Fit:
    """Members to write over the request's own, and the names of those that the model cannot heed."""

    instead: Mapping[str, Any]
    dropped: tuple[str, ...] = ()


NOTHING = Fit({})


def fit(
    body: Mapping[str, Any],
    limits: Collection[str],
    max_model_len: int | None,
    capabilities: Collection[str] | None,
) -> Fit:
    """What of `body` has to be different for this model.

    Args:
        limits: the fields that limit an answer.
        max_model_len: the model's context in tokens; None while unknown.
        capabilities: what the model can do; None while unknown.
    """
    instead: dict[str, Any] = {}
    dropped: list[str] = []
    if max_model_len is not None:
        for name in limits:
            if (body.get(name) or 0) > max_model_len:
                instead[name] = max_model_len
    if body.get("thinking_token_budget") is not None and not _thinks(capabilities):
        instead["thinking_token_budget"] = None
        dropped.append("thinking_token_budget")
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        if not _thinks(capabilities):
            instead["thinking"] = None
            dropped.append("thinking")
        elif (budget := _budget(thinking, instead)) is not None:
            instead["thinking"] = budget
    return Fit(instead, tuple(dropped)) if instead else NOTHING


def _thinks(capabilities: Collection[str] | None) -> bool:
    return capabilities is None or "reasoning" in capabilities


def _budget(thinking: Mapping[str, Any], instead: Mapping[str, Any]) -> dict[str, Any] | None:
    """Anthropic's thinking with a budget below the limit that was lowered."""
    limit = instead.get("max_tokens")
    if limit is None or (thinking.get("budget_tokens") or 0) < limit:
        return None
    if limit <= MIN_BUDGET:
        # It thinks as much as fits.
        return {"type": "adaptive"}
    return {**thinking, "budget_tokens": limit - 1}
