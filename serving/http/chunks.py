"""Decodes a chunked body (RFC 9112, 7.1), strictly; extensions and trailers are dropped and bounded."""

from __future__ import annotations

import re

from serving.errors import MalformedHttpError

MAX_LINE_BYTES = 1024
MAX_TRAILER_BYTES = 8 * 1024
# What may come beside the data of a body: a line of ordinary length for each chunk, and this in all.
MAX_EXCESS_BYTES = 16 * 1024
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SIZE, _DATA, _DATA_END, _TRAILERS, _WHOLE = range(5)


class Chunks:
    """One body: take pieces out of a buffer until `is_whole`, and not a byte more."""

    __slots__ = ("_excess", "_left", "_state", "_trailer_bytes")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._excess = 0
        self._trailer_bytes = 0

    @property
    def is_whole(self) -> bool:
        """Whether the last chunk and the trailers have been taken."""
        return self._state == _WHOLE

    def take(self, buffer: bytes | bytearray) -> tuple[bytes, int]:
        """What the beginning of `buffer` holds of the body, and how many bytes of `buffer` that used.

        Raises:
            MalformedHttpError: it is not what a chunked body looks like.
        """
        pieces: list[bytes | bytearray] = []
        at = 0
        while self._state != _WHOLE and at < len(buffer):
            before = at, self._state
            if self._state == _DATA:
                piece = buffer[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                at = self._take_data_end(buffer, at)
            else:
                at = self._take_line(buffer, at)
            if (at, self._state) == before:
                break
        return b"".join(pieces), at

    def _take_data_end(self, buffer: bytes | bytearray, at: int) -> int:
        end = buffer[at : at + 2]
        if end == b"\r\n":
            self._state = _SIZE
            return at + 2
        if end != b"\r":
            raise MalformedHttpError("a chunk of the body is longer than its size says")
        return at

    def _take_line(self, buffer: bytes | bytearray, at: int) -> int:
        pattern = _SIZE_LINE if self._state == _SIZE else _TRAILER_LINE
        line = pattern.match(buffer, at, at + MAX_LINE_BYTES)
        if line is None:
            if len(buffer) - at >= MAX_LINE_BYTES or buffer.find(b"\n", at) >= 0:
                raise MalformedHttpError("the body is not chunked as RFC 9112 says")
            return at
        length = line.end() - at
        if self._state == _SIZE:
            self._begin_chunk(int(line[1], 16), length)
        else:
            self._trailer_bytes += length
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise MalformedHttpError(f"trailers may have at most {MAX_TRAILER_BYTES} bytes")
            if length == 2:
                self._state = _WHOLE
        return line.end()

    def _begin_chunk(self, size: int, line_bytes: int) -> None:
        # As Go's net/http does: tiny chunks and long extensions are work without a body.
        self._excess = max(0, self._excess + line_bytes + 2 - (16 + 2 * size))
        if self._excess > MAX_EXCESS_BYTES:
            raise MalformedHttpError("the chunks of the body hold too little data")
        self._left = size
        self._state = _DATA if size else _TRAILERS
