"""What a model can do, and who says so."""

from __future__ import annotations

from typing import Any

import pytest

from serving.config.routing import ModelFacts
from serving.replica_facts import ModelCard
from serving.routing.capabilities import capabilities_of, card_capabilities


def test_the_card_speaks_where_the_configuration_does_not() -> None:
    card = ModelCard(capabilities=("tools",))
    assert capabilities_of(ModelFacts(), card) == {"tools"}
    assert capabilities_of(ModelFacts(capabilities=("code",)), card) == {"code"}
    assert capabilities_of(ModelFacts(capabilities=()), card) == set()
    assert capabilities_of(ModelFacts(), ModelCard()) is None


@pytest.mark.parametrize(
    ("task", "args", "modalities", "wanted"),
    [
        ("chat", {}, ["text"], ["json_schema"]),
        ("chat", {"tool_call_parser": "hermes"}, ["text"], ["json_schema", "tools"]),
        ("chat", {"reasoning_parser": "qwen3"}, ["text", "image"], None),
        ("embed", {}, ["text"], []),
    ],
)
def test_a_card_says_what_the_engines_arguments_make_possible(
    task: str, args: dict[str, Any], modalities: list[str], wanted: list[str] | None
) -> None:
    found = card_capabilities(task, args, modalities)
    assert found == (["json_schema", "reasoning", "vision"] if wanted is None else wanted)
