"""A template renders what vLLM would, or is not learned at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.chunk_template import ChunkTemplate

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def chunk(text: Any, *, delta: str = "content", **more: Any) -> str:
    """A chunk in vLLM's form."""
    choice = {"index": 0, "delta": {delta: text}, "logprobs": None, "finish_reason": None}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice |= {name: more.pop(name) for name in list(more) if name in choice}
    return f"data: {orjson.dumps(body | {'choices': [choice]} | more).decode()}\n\n"


@given(first=TEXT.filter(bool), second=TEXT)
def test_what_it_renders_differs_in_the_text_only(first: str, second: str) -> None:
    template = ChunkTemplate.learn(chunk(first), first)
    assert template is not None
    assert template.fill(second) == chunk(second).encode()


@pytest.mark.parametrize(
    "rendered",
    [
        chunk("hello", delta="reasoning"),
        chunk("hello", logprobs={"content": []}),
        chunk("hello", finish_reason="stop"),
        chunk("hello", index=1),
        chunk("hello", usage={"prompt_tokens": 1}),
        chunk("hell"),
        chunk({"role": "assistant"}),
        'data: {"error": {"message": "hello"}}\n\n',
        "data: [DONE]\n\n",
        "",
    ],
)
def test_a_chunk_that_says_more_than_its_text_teaches_nothing(rendered: str) -> None:
    assert ChunkTemplate.learn(rendered, "hello") is None


def test_an_empty_text_teaches_nothing() -> None:
    assert ChunkTemplate.learn(chunk(""), "") is None
