"""Reduces a prompt to salted hashes of its beginnings: equal hashes mean equal beginnings. Pure.

Needs no tokenizer and keeps no text. The salt is the tenant's, so that two tenants' hashes have nothing in
common, as their entries in the engines' caches have not.

Blocks of text pass XXH3, which is fast but which somebody could make to collide; what is kept is a SHA-256
over the salt and these. So who looks for collisions finds them among prompts with the same salt only, and
gains a replica that has less of a prompt than the gateway thinks.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from struct import unpack
from typing import Any

import orjson
from xxhash import xxh3_128_digest

from serving.records import record

BLOCK_BYTES = 1024
MAX_PROMPT_BYTES = 512 * 1024
# Blocks grow with their distance from the beginning, to this share of it, which keeps their number small:
# 7 per doubling.
_GROWTH = 8
# So many of the last messages end a beginning of their own: an agent's turn may add a dozen at once.
MAX_ENDS = 16
# Messages that are read; more only make the work longer.
MAX_MESSAGES = 2048
# Parts of all messages together, and token ids of a prompt, that are read.
MAX_PARTS = 2048
MAX_IDS = 64 * 1024
# Never part of UTF-8: what stands between two pieces cannot be text.
_SEPARATOR = b"\xff"
# What to do with lone surrogates, which some clients send: bytes like any other.
_LONE = "surrogatepass"


@record
class PromptPrefix:
    """Hashes of a prompt's beginnings, shortest first.

    Attributes:
        hashes: one per beginning, 64 bits.
        ends: where each beginning ends, in bytes of the rendered prompt.
        total_bytes: of the whole prompt, also of what was not hashed.
        head: hash of what stands before the first message of the user (tools, system prompts); 0 if nothing.
        head_bytes: how long that is.
        opening: hash of all up to the end of that message, which names a conversation; 0 if nothing.
        follows: whether the model has answered in this conversation before.
    """

    hashes: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    total_bytes: int = 0
    head: int = 0
    head_bytes: int = 0
    opening: int = 0
    follows: bool = False


EMPTY = PromptPrefix()


def block_hashes(
    data: bytes,
    salt: bytes,
    block_bytes: int = BLOCK_BYTES,
    max_bytes: int = MAX_PROMPT_BYTES,
) -> tuple[int, ...]:
    """Hashes of the beginnings of `data` that end with a block; what is left after the last block is ignored.

    The k-th hashes of two texts are equal if and only if their first k blocks and their salts are. The first
    eight blocks have `block_bytes`, later ones an eighth of the text before them.
    """
    ends = _block_ends(min(len(data), max_bytes), block_bytes, max_bytes)
    return _hashes_at(ends, ends, data, salt)


def prompt_prefix(
    path: str,
    body: Mapping[str, Any],
    salt: bytes,
    block_bytes: int = BLOCK_BYTES,
    max_bytes: int = MAX_PROMPT_BYTES,
) -> PromptPrefix:
    """Hash the beginnings of the prompt that a checked body makes.

    They end with blocks as in `block_hashes`, with the system prompts, with the first message of the user and
    with each of the last 16 messages: the next turn of a conversation finds all earlier ones. Tools come
    first, then system prompts, then messages. Of several prompts in one request the first counts.

    Args:
        path: the endpoint; the prompts of those that do not generate are empty.
        salt: of the tenant and of what the engine runs (`tenant_salt`).
        max_bytes: what is hashed at most; the rest only counts for `total_bytes`.
    """
    rendered = _rendered(path, body, max_bytes)
    if not rendered.pieces:
        return EMPTY
    piece_ends = list(accumulate(map(len, rendered.pieces)))
    total = piece_ends[-1]
    head_end = opening_end = 0
    if (first := rendered.first_user) >= 0:
        head_end, opening_end = (piece_ends[first - 1] if first else 0), piece_ends[first]
    data = b"".join(rendered.pieces[: bisect_left(piece_ends, max_bytes) + 1])
    size = min(len(data), max_bytes)
    blocks = _block_ends(size, block_bytes, max_bytes)
    ends = sorted({*blocks, *piece_ends[-MAX_ENDS:], head_end, opening_end})
    points = tuple(ends[bisect_right(ends, 0) : bisect_right(ends, size)])
    hashes = _hashes_at(points, blocks, data, salt)
    by_end = dict(zip(points, hashes, strict=True))
    return PromptPrefix(
        hashes=hashes,
        ends=points,
        total_bytes=total * (len(piece_ends) + rendered.unread) // len(piece_ends)
        + rendered.unread_bytes,
        head=by_end.get(head_end, 0),
        head_bytes=head_end,
        # Without a message of the user, or with one too long to be hashed as a whole: what there is.
        opening=by_end.get(opening_end, hashes[-1] if hashes else 0),
        follows=rendered.follows,
    )


def session_key(caller: str, session: str | None, prompt: PromptPrefix) -> str:
    """The key of a session: what the client calls it, or else the conversation's first messages.

    The caller's name is part of it: two tenants' sessions have nothing to do with each other. Empty if there
    is neither.
    """
    if session:
        return f"session\0{caller}\0{session}"
    return f"opening\0{caller}\0{prompt.opening:x}" if prompt.opening else ""


def tenant_salt(cache_salt: str | None, served_name: str) -> bytes:
    """The salt of hashes: prompts of two tenants, or to two models or adapters, share no cache."""
    return f"{cache_salt or ''}\0{served_name}".encode("utf-8", _LONE)


# ---- hashing -----------------------------------------------------------------------------------------


def _block_ends(size: int, block_bytes: int, max_bytes: int) -> tuple[int, ...]:
    ends = _all_block_ends(block_bytes, max_bytes)
    return ends[: bisect_right(ends, size)]


@lru_cache(maxsize=8)
def _all_block_ends(block_bytes: int, max_bytes: int) -> tuple[int, ...]:
    ends = []
    end = block_bytes
    while end <= max_bytes:
        ends.append(end)
        end += max(block_bytes, end // _GROWTH)
    return tuple(ends)


def _hashes_at(
    ends: Sequence[int], blocks: Sequence[int], data: bytes, salt: bytes
) -> tuple[int, ...]:
    """The hashes of the salt and the beginnings of `data` that end there; `blocks` are among them.

    XXH3 shortens what has come since the last block, SHA-256 chains that to the salt and the blocks before.
    """
    chain = hashlib.sha256(len(salt).to_bytes(4) + salt).digest()
    view = memoryview(data)
    whole = frozenset(blocks)
    digests = []
    start = 0
    for end in ends:
        digest = hashlib.sha256(chain + xxh3_128_digest(view[start:end])).digest()
        digests.append(digest[:8])
        if end in whole:
            chain, start = digest, end
    return unpack(f">{len(digests)}Q", b"".join(digests))


# ---- rendering ---------------------------------------------------------------------------------------

# Where prompts stand in a body, in the order in which models read them. Some templates put the first system
# prompt before the tools; the two nearly always come together.
_ROOTS: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("tools", "messages"),
    "/v1/completions": ("prompt",),
    "/v1/responses": ("tools", "instructions", "input"),
    "/v1/messages": ("tools", "system", "messages"),
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
# Clients move it from message to message as a conversation grows; it is not part of the prompt.
_NOT_PROMPT = "cache_control"
_IMAGE_BYTES = 2048


@dataclass(slots=True)
class _Rendered:
    """A prompt in pieces that end where messages end."""

    pieces: list[bytes] = field(default_factory=list)
    # Index of the first message by a user; -1: there is none.
    first_user: int = -1
    follows: bool = False
    # Messages beyond MAX_MESSAGES or MAX_PARTS, and bytes of token ids beyond MAX_IDS.
    unread: int = 0
    unread_bytes: int = 0


def _rendered(path: str, body: Mapping[str, Any], max_bytes: int) -> _Rendered:
    out = _Rendered()
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


def _add_head(out: _Rendered, content: str | Sequence[Any], max_bytes: int) -> None:
    """What stands before the messages: no more of it than is hashed, the rest only counts."""
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


def _add_messages(out: _Rendered, messages: Sequence[Mapping[str, Any]]) -> None:
    # Runs for every message of every request: what looks clumsy here saves a tenth of its time each.
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
        head = role.encode("utf-8", _LONE) if type(role) is str else b""
        text = content.encode("utf-8", _LONE) if type(content) is str else _content(content or ())
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
        # Megabytes of text that become a thousand tokens or so; their ends tell images apart.
        data = data[:_IMAGE_BYTES] + len(data).to_bytes(8) + data[-_IMAGE_BYTES:]
    return data


def _add_prompt(out: _Rendered, prompt: str | Sequence[Any]) -> None:
    if not isinstance(prompt, str) and not isinstance(prompt[0], int):
        prompt = prompt[0]
    if isinstance(prompt, str):
        out.pieces.append(_text(prompt))
        return
    read = _json(prompt[:MAX_IDS])
    out.pieces.append(read)
    out.unread_bytes += len(read) * max(0, len(prompt) - MAX_IDS) // MAX_IDS


def _text(text: str) -> bytes:
    return text.encode("utf-8", _LONE)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # Nested too deeply: the gateway refuses it when it writes the body.
        return b""
