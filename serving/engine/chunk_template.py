"""A chunk of one stream with a gap for the text: the JSON that vLLM renders per token, rendered once. Pure.

vLLM builds three pydantic models for every chunk of a stream although only the text differs. The template is
cut out of a chunk that vLLM itself has rendered, so it follows vLLM's format, whatever that is.
"""

from __future__ import annotations

import re

import orjson

# After the text, nothing but nulls: no log probabilities, no token ids, no usage, nothing that could vary.
_SAME_FOR_ALL = re.compile(r'(?:,"[a-z_]+":null)*\}\]\}\n\n')


class ChunkTemplate:
    """Renders the chunks of one stream, as server-sent events."""

    __slots__ = ("_after", "_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after

    @classmethod
    def learn(cls, chunk: str, text: str) -> ChunkTemplate | None:
        """Cut the template out of a rendered chunk.

        Args:
            chunk: an event as vLLM rendered it.
            text: what the engine had generated for it.

        Returns:
            None when the chunk depends on more than the text, because the next one may then differ.
        """
        before, found, after = chunk.partition('"delta":{"content":' + _quoted(text) + "}")
        if not found or not text or '"choices":[{"index":0,' not in before:
            return None
        if not _SAME_FOR_ALL.fullmatch(after):
            return None
        return cls((before + '"delta":{"content":').encode(), ("}" + after).encode())

    def fill(self, text: str) -> bytes:
        """The chunk for this text."""
        return self._before + orjson.dumps(text) + self._after


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()
