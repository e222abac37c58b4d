"""Features of a request: the input of the rules of `auto`, and an estimate of its size. Pure.

The work is bounded whatever the body holds. Of a long list MAX_ITEMS are visited, from both ends, and the
rest is extrapolated. Characters are read in a sample only, SAMPLE_CHARACTERS at each end. A feature is a
number, a flag or a word of a fixed list, never text of the request: it may be logged and shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, get_args

from serving import api
from serving.api import Kind
from serving.config.routing import Effort
from serving.records import record
from serving.routing.writing import code_share, language_of, script_of

SAMPLE_CHARACTERS = 8192
MAX_ITEMS = 256
MAX_VISITS = 2048
MAX_TOOL_NODES = 512
_SAMPLE_PIECES = 64
_MAX_DEPTH = 6
# The tokens that a chat template adds to each message (role, separators).
_TOKENS_PER_TURN = 4
_SCHEMA_CHARACTERS_PER_TOKEN = 4

_CONVERSATIONS = frozenset({"chat", "responses", "messages"})
# Prompts without the tools, which are measured another way.
_ROOTS: Mapping[str, tuple[str, ...]] = {
    path: tuple(root for root in row.prompt_roots if root != "tools")
    for path, row in api.ENDPOINTS.items()
}
# The members with text in a message, an item or a part.
_TEXT_KEYS = frozenset({"text", "content", "arguments", "output", "tool_calls", "function"})
_IMAGE_TYPES = frozenset({"image_url", "image"})


@record
class RequestFeatures:
    """The features of a request, as seen at a glance.

    `input_tokens` is an estimate: a quarter of a token per Latin letter, digit or sign, one per Chinese,
    Japanese or Korean character, half a one in other alphabets; token ids count as they are, images not at
    all. `turns` are messages of any role, `tools` those that may be called (none with `tool_choice: none`).
    `json_schema` says that the answer must be JSON. `language` is a two-letter code or `und`.
    """

    kind: Kind
    tools: int = 0
    json_schema: bool = False
    images: int = 0
    stream: bool = False
    turns: int = 1
    input_characters: int = 0
    input_tokens: int = 0
    max_output_tokens: int | None = None
    code_share: float = 0.0
    script: str = "none"
    language: str = "und"
    reasoning_effort: Effort | None = None

    @property
    def total_tokens(self) -> int:
        """The tokens that the model's context must hold, as far as the request says."""
        return self.input_tokens + (self.max_output_tokens or 1)

    @property
    def needs(self) -> frozenset[str]:
        """Capabilities without which a model cannot serve the request at all."""
        return frozenset(
            word for word, used in (("tools", self.tools), ("vision", self.images)) if used
        )


def features_of(path: str, body: Mapping[str, Any]) -> RequestFeatures:
    """The features of a body that its endpoint has checked (`serving.trust.endpoint.Endpoint.check`).

    Raises:
        KeyError: no model answers at this path; `serving.api.ENDPOINTS` has those that there are.
    """
    endpoint = api.ENDPOINTS[path]
    walk = _Walk()
    for root in _ROOTS[path]:
        if root in body:
            walk.visit(body[root], MAX_ITEMS, 1.0, 0)
    head, tail = _sample(walk.pieces)
    script, tokens_per_character = script_of(head + tail)
    tools = body.get("tools") or ()
    turns = _turns(body)
    kind = endpoint.kind
    tokens = walk.characters * tokens_per_character + walk.token_ids
    tokens += turns * _TOKENS_PER_TURN if kind in _CONVERSATIONS else 0
    tokens += _tool_characters(tools) / _SCHEMA_CHARACTERS_PER_TOKEN
    return RequestFeatures(
        kind=kind,
        tools=len(tools) if _may_call(body.get("tool_choice")) else 0,
        json_schema=_wants_json(body),
        images=walk.images,
        stream=body.get("stream") is True,
        turns=turns,
        input_characters=round(walk.characters),
        input_tokens=round(tokens),
        max_output_tokens=next(
            (body[name] for name in endpoint.output_limits if body.get(name)), None
        ),
        code_share=code_share(head, tail),
        script=script,
        language=language_of(script, head, tail),
        reasoning_effort=_effort(body),
    )


# ---- what the body holds -----------------------------------------------------------------------------


@dataclass
class _Walk:
    """A walk over a body: it adds up the lengths of texts unread, and keeps the texts for the sample."""

    characters: float = 0.0
    token_ids: float = 0.0
    images: int = 0
    pieces: list[str] = field(default_factory=list)
    left: int = MAX_VISITS

    def visit(self, value: Any, limit: int, scale: float, depth: int) -> None:
        """Visit a value that stands for `scale` of its kind, and at most `limit` items of a list."""
        self.left -= 1
        if self.left < 0:
            return
        if isinstance(value, str):
            self.characters += len(value) * scale
            self.pieces.append(value)
        elif isinstance(value, list) and depth < _MAX_DEPTH:
            size = len(value)
            if size and type(value[0]) is int:
                self.token_ids += size * scale
                return
            if size > limit:
                value = value[: limit // 2] + value[-(limit // 2) :]
                scale *= size / len(value)
            limit = max(2, limit // max(1, len(value)))
            for item in value:
                self.visit(item, limit, scale, depth + 1)
        elif isinstance(value, dict) and depth < _MAX_DEPTH:
            kind = value.get("type")
            if isinstance(kind, str) and kind in _IMAGE_TYPES:
                self.images += 1
            elif kind == "tool_use":
                self.characters += _json_characters(value.get("input"), limit)[0] * scale
            else:
                for key, member in value.items():
                    if key in _TEXT_KEYS:
                        self.visit(member, limit, scale, depth + 1)


def _sample(pieces: list[str]) -> tuple[str, str]:
    """The first and the last characters of a text in pieces; the latter is empty when the first is all."""
    size = SAMPLE_CHARACTERS
    head = "\n".join(piece[:size] for piece in pieces[:_SAMPLE_PIECES])
    if len(head) <= size and len(pieces) <= _SAMPLE_PIECES:
        return head, ""
    tail = "\n".join(piece[-size:] for piece in pieces[-_SAMPLE_PIECES:])
    return head[:size], tail[-size:]


def _json_characters(value: Any, max_nodes: int) -> tuple[int, int]:
    """The rough number of characters of a JSON value, and the number of its members that were visited."""
    characters = nodes = 0
    stack = [value]
    while stack and nodes < max_nodes:
        node = stack.pop()
        nodes += 1
        if isinstance(node, str):
            characters += len(node) + 2
        elif isinstance(node, list):
            stack.extend(node[:max_nodes])
        elif isinstance(node, dict):
            for key, member in islice(node.items(), max_nodes):
                characters += len(key) + 4
                stack.append(member)
        else:
            characters += 4
    return characters, nodes


def _tool_characters(tools: Any) -> float:
    """The characters of the tools' schemas, which the chat template writes into the prompt."""
    left, characters = MAX_TOOL_NODES, 0
    for number, tool in enumerate(tools, start=1):
        size, nodes = _json_characters(tool, left)
        characters += size
        left -= nodes
        if left <= 0:
            return characters * len(tools) / number
    return characters


def _may_call(choice: Any) -> bool:
    return choice != "none" and not (isinstance(choice, dict) and choice.get("type") == "none")


def _wants_json(body: Mapping[str, Any]) -> bool:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else body.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object")


def _turns(body: Mapping[str, Any]) -> int:
    for key in ("messages", "input"):
        items = body.get(key)
        if isinstance(items, list) and items and isinstance(items[0], dict):
            return len(items)
    return 1


def _effort(body: Mapping[str, Any]) -> Effort | None:
    """The reasoning effort in OpenAI's words, whichever field says it."""
    reasoning, thinking = body.get("reasoning"), body.get("thinking")
    said = body.get("reasoning_effort")
    if said is None and isinstance(reasoning, dict):
        said = reasoning.get("effort")
    if said is not None:
        return next((effort for effort in _EFFORTS if effort == said), None)
    if isinstance(thinking, dict):
        return "none" if thinking.get("type") == "disabled" else "medium"
    template = body.get("chat_template_kwargs") or {}
    thinks = template.get("enable_thinking", template.get("thinking"))
    return None if thinks is None else "medium" if thinks else "none"


_EFFORTS: tuple[Effort, ...] = get_args(Effort)
