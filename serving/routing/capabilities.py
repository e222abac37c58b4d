"""Capabilities of a model: from its card, or from the site's configuration instead. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serving.config.routing import ModelFacts
from serving.replica_facts import ModelCard


def capabilities_of(facts: ModelFacts, card: ModelCard) -> frozenset[str] | None:
    """The capabilities of a model: the site's word, else the card's; None when there is neither."""
    said = facts.capabilities if facts.capabilities is not None else card.capabilities
    return None if said is None else frozenset(said)


def card_capabilities(
    task: str, engine_args: Mapping[str, Any], modalities: Iterable[str] = ("text",)
) -> list[str]:
    """The `capabilities` of a model's card, by its task, vLLM's arguments and its modalities."""
    found = {
        # vLLM constrains the output of every generating model.
        "json_schema": task in ("chat", "guard"),
        "tools": bool(engine_args.get("tool_call_parser")),
        "reasoning": bool(engine_args.get("reasoning_parser")),
        "vision": "image" in modalities,
    }
    return [name for name, has in found.items() if has]
