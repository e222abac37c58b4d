"""Reasoning comes under both names, and nothing else of an answer changes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.reasoning_names import with_both_names

TEXTS = st.text(max_size=20) | st.sampled_from(
    ['"reasoning":"', '\\"reasoning\\":"a', "\\", '"', '","reasoning":"x', "\\\\", "\u2028", "\n"]
)


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


@given(TEXTS, TEXTS, st.none() | TEXTS)
def test_both_names_hold_the_same_text_whatever_the_texts_are(
    content: str, arguments: str, reasoning: str | None
) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    message = {
        "role": "assistant",
        "content": content,
        "reasoning": reasoning,
        "tool_calls": [call],
    }
    answer = {"id": "a", "choices": [{"index": index, "message": message} for index in range(2)]}
    read = orjson.loads(with_both_names(dumps(answer)))
    for choice in read["choices"]:
        assert choice["message"].pop("reasoning_content", None) == reasoning
    assert read == answer


@given(TEXTS)
def test_an_event_stays_one_event(text: str) -> None:
    event = "data: " + dumps({"choices": [{"index": 0, "delta": {"reasoning": text}}]}) + "\n\n"
    changed = with_both_names(event)
    assert changed.startswith("data: ")
    assert changed.endswith("\n\n")
    assert changed.count("\n") == 2
    delta = orjson.loads(changed[6:])["choices"][0]["delta"]
    assert delta == {"reasoning": text, "reasoning_content": text}


@pytest.mark.parametrize(
    "text", ["data: [DONE]\n\n", '{"delta":{"content":"a"}}', '{"reasoning":null}', ""]
)
def test_without_reasoning_nothing_changes(text: str) -> None:
    assert with_both_names(text) is text
