"""Every kind of request that models answer, and how to read the cost from an answer. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from serving import api

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
CHAT, EMBEDDING, RERANKER = "qwen3", "qwen3-embedding", "qwen3-reranker"


@dataclass(frozen=True)
class Reading:
    """An answer's `usage`; a prompt counts once however many answers it gets."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Kind:
    """One kind of request. `always_left`: its clients never wait for the end."""

    name: str
    path: str
    make: Callable[[random.Random], dict[str, Any]]
    always_left: bool = False

    def body(self, rng: random.Random) -> dict[str, Any]:
        """A request of this kind."""
        return self.make(rng)

    def read(self, content: bytes) -> Reading | None:
        """The cost that a complete answer reports; None without one."""
        usage: dict[str, Any] = {}
        for answer in _objects(content):
            # Anthropic's streams say it in parts, the responses API inside of its last event.
            for holder in (answer, answer.get("message"), answer.get("response")):
                if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                    usage |= holder["usage"]
        prompt = usage.get("prompt_tokens", usage.get("input_tokens", usage.get("total_tokens")))
        if prompt is None:
            return None
        # Anthropic's dialect says apart what of the prompt was cached.
        prompt += usage.get("cache_read_input_tokens") or 0
        prompt += usage.get("cache_creation_input_tokens") or 0
        return Reading(prompt, usage.get("completion_tokens", usage.get("output_tokens")) or 0)


def _objects(content: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of an answer: of each event, or the one there is."""
    if content.startswith(b"{"):
        yield json.loads(content)
        return
    for line in content.splitlines():
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))


def _messages(rng: random.Random) -> list[dict[str, str]]:
    return [{"role": "user", "content": _text(rng)}]


def _chat(rng: random.Random, **fields: Any) -> dict[str, Any]:
    tokens = {"max_tokens": rng.randint(1, 40)}
    return {"model": CHAT, "messages": _messages(rng)} | tokens | fields


def _completion(rng: random.Random, **fields: Any) -> dict[str, Any]:
    prompts = [_text(rng) for _ in range(rng.randint(1, 3))]
    return {"model": CHAT, "prompt": prompts, "max_tokens": rng.randint(1, 40)} | fields


def _response(rng: random.Random) -> dict[str, Any]:
    stream = rng.random() < 0.5
    output = rng.randint(1, 40)
    return {"model": CHAT, "input": _text(rng), "max_output_tokens": output, "stream": stream}


_STREAM = {"stream": True, "stream_options": {"include_usage": True}}

KINDS = (
    Kind("chat", api.CHAT, _chat),
    Kind("chat stream", api.CHAT, lambda rng: _chat(rng, **_STREAM)),
    Kind(
        "n=2",
        api.CHAT,
        lambda rng: _chat(rng, n=2, **(_STREAM if rng.random() < 0.5 else {})),
    ),
    Kind("completions", api.COMPLETIONS, _completion),
    Kind("completions stream", api.COMPLETIONS, lambda rng: _completion(rng, **_STREAM)),
    Kind("responses", api.RESPONSES, _response),
    Kind("messages", api.MESSAGES, lambda rng: _chat(rng, stream=rng.random() < 0.5)),
    Kind(
        "embeddings",
        api.EMBEDDINGS,
        lambda rng: {
            "model": EMBEDDING,
            "input": [_text(rng) for _ in range(rng.randint(1, 8))],
        },
    ),
    Kind(
        "rerank",
        api.RERANK,
        lambda rng: {
            "model": RERANKER,
            "query": _text(rng),
            "documents": [_text(rng) for _ in range(rng.randint(1, 8))],
        },
    ),
    Kind(
        "aborted stream",
        api.CHAT,
        lambda rng: _chat(rng, max_tokens=2000, ignore_eos=True, **_STREAM),
        always_left=True,
    ),
)
