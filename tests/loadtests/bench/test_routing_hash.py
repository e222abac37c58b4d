"""The timing of prompt hashes: which prompts, and when the command fails."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from loadtests.bench import routing_hash
from loadtests.bench.routing_hash import BODIES, app, conversation, measure


def test_the_long_prompts_have_thirty_two_thousand_tokens_or_so() -> None:
    sizes = [measure(name, body, 1).prompt_bytes for name, body in BODIES.items()]
    assert sizes[0] < 2100
    assert min(sizes[1:]) >= 120 * 1024


def test_messages_share_the_text_and_lose_none_of_it() -> None:
    messages = conversation("abcdefg", 3)["messages"]
    assert [one["content"] for one in messages] == ["abc", "def", "g"]
    assert [one["role"] for one in messages] == ["user", "assistant", "user"]


def test_a_prompt_that_takes_too_long_fails_the_command_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing_hash, "BODIES", {"short": conversation("text", 1)})
    passed = CliRunner().invoke(app, ["--repeats", "3", "--most-us", "1e9"])
    assert passed.exit_code == 0
    assert "short" in passed.stdout
    missed = CliRunner().invoke(app, ["--repeats", "3", "--most-us", "0"])
    assert missed.exit_code == 1
    assert "longer than 0 µs: short" in missed.stdout
