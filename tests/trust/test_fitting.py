"""A request that asks for more than the model has is fitted to it, not refused."""

from __future__ import annotations

from typing import Any

import pytest

from serving.trust.fitting import NOTHING, fit

CHAT = ("max_completion_tokens", "max_tokens")
THINKS, DOES_NOT = ("json_schema", "reasoning"), ("json_schema",)
ENABLED = {"type": "enabled", "budget_tokens": 31_999}


@pytest.mark.parametrize(
    ("body", "length", "capabilities"),
    [
        ({"max_tokens": 8192}, 8192, THINKS),
        ({"max_tokens": 10**6}, None, None),
        ({}, 10, DOES_NOT),
        ({"max_tokens": 32_000, "thinking": ENABLED}, 32_768, THINKS),
        ({"thinking": {"type": "disabled"}}, 8192, DOES_NOT),
        ({"thinking": {"type": "adaptive"}}, 8192, DOES_NOT),
        ({"thinking_token_budget": 5}, 8192, THINKS),
        ({"thinking_token_budget": 5}, 8192, None),
    ],
)
def test_what_the_model_has_or_may_have_is_left_alone(
    body: dict[str, Any], length: int | None, capabilities: tuple[str, ...] | None
) -> None:
    assert fit(body, CHAT, length, capabilities) is NOTHING


@pytest.mark.parametrize(
    ("body", "capabilities", "instead", "dropped"),
    [
        ({"max_tokens": 8193}, THINKS, {"max_tokens": 8192}, ()),
        (
            {"max_tokens": 9000, "max_completion_tokens": 9000},
            THINKS,
            {"max_tokens": 8192, "max_completion_tokens": 8192},
            (),
        ),
        (
            {"max_tokens": 32_000, "thinking": ENABLED},
            THINKS,
            {"max_tokens": 8192, "thinking": {"type": "enabled", "budget_tokens": 8191}},
            (),
        ),
        ({"thinking": ENABLED}, DOES_NOT, {"thinking": None}, ("thinking",)),
        (
            {"thinking_token_budget": 0},
            DOES_NOT,
            {"thinking_token_budget": None},
            ("thinking_token_budget",),
        ),
    ],
)
def test_what_it_has_not_is_cut_or_left_out_and_named(
    body: dict[str, Any],
    capabilities: tuple[str, ...],
    instead: dict[str, Any],
    dropped: tuple[str, ...],
) -> None:
    found = fit(body, CHAT, 8192, capabilities)
    assert dict(found.instead) == instead
    assert found.dropped == dropped


def test_a_context_too_small_for_any_budget_leaves_it_to_the_model() -> None:
    found = fit({"max_tokens": 32_000, "thinking": ENABLED}, ("max_tokens",), 1024, THINKS)
    assert found.instead == {"max_tokens": 1024, "thinking": {"type": "adaptive"}}
