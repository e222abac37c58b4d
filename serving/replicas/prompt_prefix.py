"""Salted hashes of a prompt's beginnings: equal hashes mean equal beginnings. Pure.

They need no tokenizer and keep no text. The salt is the tenant's: two tenants' hashes have nothing in common,
like their entries in the engines' caches.

Blocks of text pass XXH3, which is fast, but for which collisions can be made; what is kept is a SHA-256 over
the salt and these. Collisions can thus be made among prompts with the same salt only, and all that they gain
is a replica that has less of a prompt than the gateway thinks.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from struct import unpack
from typing import Any

from xxhash import xxh3_128_digest

from serving.records import record
from serving.replicas.rendered_prompt import LONE_SURROGATES, rendered_prompt

BLOCK_BYTES = 1024
MAX_PROMPT_BYTES = 512 * 1024
# A block is an eighth of the text before it, which keeps the number of blocks small: 7 per doubling.
_GROWTH = 8
# The number of last messages that each end a beginning: an agent's turn may add a dozen at once.
MAX_ENDS = 16


@record
class PromptPrefix:
    """Hashes of a prompt's beginnings, shortest first.

    Attributes:
        hashes: one of 64 bits for each beginning.
        ends: the end of each beginning, in bytes of the rendered prompt.
        total_bytes: length of the whole prompt, also of what was not hashed.
        head: hash of all before the first message of the user (tools, system prompts); 0 if there is nothing.
        head_bytes: length of that.
        opening: hash of all up to the end of that message, which names a conversation; 0 if there is none.
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


def prompt_prefix(
    path: str,
    body: Mapping[str, Any],
    salt: bytes,
    block_bytes: int = BLOCK_BYTES,
    max_bytes: int = MAX_PROMPT_BYTES,
) -> PromptPrefix:
    """The hashes of the beginnings of the prompt in a checked body.

    A beginning ends with each block (the first eight have `block_bytes`, later ones an eighth of the text
    before them), with the system prompts, with the first message of the user and with each of the last 16
    messages: the next turn of a conversation finds all earlier ones. Tools come first, then system prompts,
    then messages. Of several prompts in one request the first counts.

    Args:
        path: the endpoint; an endpoint that does not generate has no prompt.
        salt: the salt of the tenant and of the model or adapter (`tenant_salt`).
        max_bytes: the most that is hashed; the rest only counts for `total_bytes`.
    """
    rendered = rendered_prompt(path, body, max_bytes)
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
    """The key of a session: the client's name for it, or else the conversation's first messages.

    The caller's name is part of it: two tenants' sessions have nothing to do with each other. It is empty if
    there is neither.
    """
    if session:
        return f"session\0{caller}\0{session}"
    return f"opening\0{caller}\0{prompt.opening:x}" if prompt.opening else ""


def tenant_salt(cache_salt: str | None, served_name: str) -> bytes:
    """The salt of hashes; prompts of two tenants, or to two models or adapters, share no cache."""
    return f"{cache_salt or ''}\0{served_name}".encode("utf-8", LONE_SURROGATES)


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
    """The hashes of the salt and the beginnings of `data` with these ends; `blocks` are among them.

    XXH3 shortens the bytes since the last block, SHA-256 chains them to the salt and the blocks before.
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
