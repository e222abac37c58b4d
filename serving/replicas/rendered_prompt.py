"""Writes the prompt of a request in pieces of bytes that end where its messages end. Pure.

The work is bounded whatever the body holds: messages, parts and token ids beyond a number are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.api import GENERATING

# The number of messages that are read; more only make the work longer.
MAX_MESSAGES = 2048
# The numbers of parts (of all messages together) and of token ids that are read.
MAX_PARTS = 2048
MAX_IDS = 64 * 1024
# The byte between two pieces; it is never part of UTF-8, so no text can hold it.
_SEPARATOR = b"\xff"
# The encoding of lone surrogates, which some clients send: bytes like any other.
LONE_SURROGATES = "surrogatepass"

# Nothing is cached of what other endpoints read.
_ROOTS: Mapping[str, tuple[str, ...]] = {path: row.prompt_roots for path, row in GENERATING.items()}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
# A field that clients move from message to message as a conversation grows; it is no part of the prompt.
_NOT_PROMPT = "cache_control"
_IMAGE_BYTES = 2048


@dataclass(slots=True)
class RenderedPrompt:
    """A prompt in pieces that end where messages end."""

    pieces: list[bytes] = field(default_factory=list)
    # Index of the first message of the user; -1: there is none.
    first_user: int = -1
    follows: bool = False
    # Messages beyond MAX_MESSAGES or MAX_PARTS, and bytes of token ids beyond MAX_IDS.
    unread: int = 0
    unread_bytes: int = 0


def rendered_prompt(path: str, body: Mapping[str, Any], max_bytes: int) -> RenderedPrompt:
    out = RenderedPrompt()
    for root in _ROOTS.get(path, ()):
        value = body.get(root)
        if not value:
            continue
        if root == "prompt":
            _add_prompt(out, value)
        elif root in ("tools", "system", "instructions"):
            _add_head(out, value, max_bytes)
        elif isinstance(value, str):
            out.first_user = len(out.pieces)
            out.pieces.append(_text(value) + _SEPARATOR)
        else:
            _add_messages(out, value)
    return out


def _add_head(out: RenderedPrompt, content: str | Sequence[Any], max_bytes: int) -> None:
    """Add what stands before the messages: no more of it than is hashed, the rest only counts."""
    if isinstance(content, str):
        out.pieces.append(_text(content) + _SEPARATOR)
        return
    parts: list[bytes] = []
    size = 0
    for part in content:
        parts.append(_part(part))
        size += len(parts[-1])
        if size > max_bytes:
            break
    out.unread_bytes += size * (len(content) - len(parts)) // max(1, len(parts))
    out.pieces.append(_SEPARATOR.join(parts) + _SEPARATOR)


def _add_messages(out: RenderedPrompt, messages: Sequence[Mapping[str, Any]]) -> None:
    # This runs for every message of every request: each clumsy line here saves a tenth of its time.
    out.unread = max(0, len(messages) - MAX_MESSAGES)
    add = out.pieces.append
    parts_left, before = MAX_PARTS, len(out.pieces)
    for message in messages[:MAX_MESSAGES] if out.unread else messages:
        role, content = message.get("role"), message.get("content")
        if role == "assistant":
            out.follows = True
        elif role == "user" and out.first_user < 0:
            out.first_user = len(out.pieces)
        if type(content) is list:
            parts_left -= len(content)
            if parts_left < 0:
                out.unread = len(messages) - (len(out.pieces) - before)
                break
        head = role.encode("utf-8", LONE_SURROGATES) if type(role) is str else b""
        text = (
            content.encode("utf-8", LONE_SURROGATES)
            if type(content) is str
            else _content(content or ())
        )
        if len(message) > 2:
            add(b"".join((head, _SEPARATOR, text, _SEPARATOR, _rest(message))))
        else:
            add(b"".join((head, _SEPARATOR, text, _SEPARATOR)))


def _rest(message: Mapping[str, Any]) -> bytes:
    # Empty ones (`refusal: null`, `annotations: []`) come and go with the client's library.
    rest = {
        key: value
        for key, value in message.items()
        if value and key not in ("role", "content", _NOT_PROMPT)
    }
    return _json(rest) + _SEPARATOR if rest else b""


def _content(content: str | Iterable[Any]) -> bytes:
    if isinstance(content, str):
        return _text(content)
    return _SEPARATOR.join(map(_part, content))


def _part(part: Any) -> bytes:
    if not isinstance(part, dict):
        return _json(part)
    kind, text = str(part.get("type")), part.get("text")
    if kind in _TEXT_PARTS and isinstance(text, str):
        return _text(text)
    data = _json({key: value for key, value in part.items() if key != _NOT_PROMPT})
    if "image" in kind:
        # Megabytes of text become a thousand tokens or so; their ends tell images apart.
        data = data[:_IMAGE_BYTES] + len(data).to_bytes(8) + data[-_IMAGE_BYTES:]
    return data


def _add_prompt(out: RenderedPrompt, prompt: str | Sequence[Any]) -> None:
    if not isinstance(prompt, str) and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        out.pieces.append(_text(prompt))
        return
    read = _json(prompt[:MAX_IDS])
    out.pieces.append(read)
    out.unread_bytes += len(read) * max(0, len(prompt) - MAX_IDS) // MAX_IDS


def _text(text: str) -> bytes:
    return text.encode("utf-8", LONE_SURROGATES)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # The value is nested too deeply: the gateway refuses it when it writes the body.
        return b""
