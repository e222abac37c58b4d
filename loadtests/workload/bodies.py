"""Bodies of requests: a conversation's turn on the wire.

Prompts exist here and in the requests' bytes only; records, logs and reports never see them.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from loadtests.workload.conversations import Conversation, Turn
from loadtests.workload.prompts import Prompts, load_prompts
from loadtests.workload.scenario import ClassConfig, Scenario
from loadtests.workload.traces import BLOCK_TOKENS
from serving import api
from serving.errors import ConfigError

Body = dict[str, Any]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {argument: {"type": "string"}},
                "required": [argument],
            },
        },
    }
    for name, description, argument in (
        ("search", "Search the documents of the company", "query"),
        ("read", "Read one document", "name"),
        ("calculate", "Compute an expression", "expression"),
    )
]


@dataclass(slots=True)
class Turns:
    """The conversation so far."""

    messages: list[Body] = field(default_factory=list)

    def answered(self, text: str) -> None:
        """The assistant's turn; models that say nothing still have had it."""
        self.messages.append({"role": "assistant", "content": text or "."})


class Composer:
    """Makes the bodies of a scenario's requests.

    Raises:
        ConfigError: a tokenizer or a file of prompts cannot be read.
    """

    def __init__(self, scenario: Scenario) -> None:
        tokenizers = scenario.target.tokenizers
        by_place = {place: load_prompts(place) for place in {*tokenizers.values()}}
        default = Prompts.without_tokenizer()
        self._prompts: Mapping[str, Prompts] = {
            one.model: by_place.get(tokenizers.get(one.model, ""), default)
            for one in scenario.classes
        }
        self._own = {
            one.name: read_prompts(Path(one.prompts)) for one in scenario.classes if one.prompts
        }
        self.take_from(0, 1)
        self._shared = {
            one.name: self._prompts[one.model].text(
                one.shared_prefix_tokens, zlib.crc32(one.name.encode())
            )
            for one in scenario.classes
            if one.shared_prefix_tokens
        }

    def take_from(self, index: int, count: int) -> None:
        """Of prompts of one's own, use every `count`-th from this one on: others use the rest."""
        self._next = {name: itertools.count(index, count) for name in self._own}

    @property
    def inexact(self) -> list[str]:
        """Models whose prompts are as long as they should be only roughly."""
        return sorted(name for name, prompts in self._prompts.items() if not prompts.is_exact)

    def compose(
        self, kind: ClassConfig, conversation: Conversation, number: int, turns: Turns
    ) -> tuple[str, Body]:
        """The path and the body of one turn; `turns` gets the user's part of it."""
        turn = conversation.turns[number]
        text = self._text(kind, conversation, number, turn)
        if kind.kind == "embeddings":
            shared = self._shared.get(kind.name)
            whole = f"{shared} {text}" if shared else text
            return api.EMBEDDINGS, {"model": kind.model, "input": whole}
        if number == 0 and kind.name in self._shared:
            turns.messages.append({"role": "system", "content": self._shared[kind.name]})
        if kind.kind == "agent" and number:
            _use_tool(turns, number, text)
        else:
            turns.messages.append({"role": "user", "content": text})
        body: Body = {
            "model": kind.model,
            "messages": list(turns.messages),
            "max_tokens": turn.output_tokens,
            "temperature": 0,
            # Answers are as long as they were planned, or token counts could not be compared.
            "ignore_eos": True,
            "stream": kind.stream,
        }
        if kind.stream:
            body["stream_options"] = {"include_usage": True}
        if kind.kind == "agent":
            # Models without a tool parser refuse `auto`; the prompt is the same.
            body |= {"tools": TOOLS, "tool_choice": "none"}
        return api.CHAT, body

    def _text(self, kind: ClassConfig, conversation: Conversation, number: int, turn: Turn) -> str:
        own = self._own.get(kind.name)
        if own is not None:
            return own[(conversation.number * kind.turns + number) % len(own)]
        prompts = self._prompts[kind.model]
        if conversation.block_ids:
            return _from_blocks(prompts, conversation, turn.input_tokens)
        return prompts.text(turn.input_tokens, conversation.seed * 1009 + number)


def _from_blocks(prompts: Prompts, conversation: Conversation, tokens: int) -> str:
    """Blocks with the same id have the same text, so that prefix caches find what they found in the trace."""
    texts, left = [], tokens
    for block in conversation.block_ids:
        if left <= 0:
            break
        texts.append(prompts.text(min(BLOCK_TOKENS, left), block + 1))
        left -= BLOCK_TOKENS
    if left > 0:
        texts.append(prompts.text(left, conversation.seed))
    return " ".join(texts)


def _use_tool(turns: Turns, number: int, result: str) -> None:
    """The last answer becomes a call of a tool, and this turn brings its result."""
    call = {
        "id": f"call-{number}",
        "type": "function",
        "function": {"name": "search", "arguments": '{"query": "more"}'},
    }
    turns.messages[-1] = {"role": "assistant", "content": "", "tool_calls": [call]}
    turns.messages.append({"role": "tool", "tool_call_id": f"call-{number}", "content": result})


def read_prompts(path: Path) -> list[str]:
    """Prompts of one's own: JSON lines with the key `prompt`.

    Raises:
        ConfigError: naming the line that is wrong.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"prompts: {path}: {error.strerror}", param="prompts") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            prompt = orjson.loads(line)["prompt"]
        except (ValueError, TypeError, KeyError):
            prompt = None
        if not isinstance(prompt, str) or not prompt:
            raise ConfigError(
                f'prompts: {path}, line {number}: must be an object like {{"prompt": "text"}}',
                param="prompts",
            )
        found.append(prompt)
    if not found:
        raise ConfigError(f"prompts: {path}: there is no prompt in it", param="prompts")
    return found
