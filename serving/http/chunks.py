"""Decodes a chunked body (RFC 9112, 7.1), strictly; extensions and trailers are dropped and bounded."""

from __future__ import annotations

import re

from serving.errors import MalformedHttpError

MAX_LINE_BYTES = 1024
MAX_TRAILER_BYTES = 8 * 1024
# A chunk of n bytes may have FREE_BYTES + n / 2 beside its data; what is beyond adds up to so much at most.
FREE_BYTES = 2
MAX_EXCESS_BYTES = 16 * 1024
MAX_CHUNKS_AT_ONCE = 400
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*)?\r\n")
_SIZE, _DATA, _DATA_END, _TRAILERS, _WHOLE = range(5)


class Chunks:
    """One body: take pieces out of a buffer until `is_whole`, and not a byte more."""

    __slots__ = ("_excess", "_left", "_state", "_trailer_bytes", "is_behind")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._excess = 0
        self._trailer_bytes = 0
        self.is_behind = False

    @property
    def is_whole(self) -> bool:
        """Whether the last chunk and the trailers have been taken."""
        return self._state == _WHOLE

    def take(self, buffer: bytes | bytearray) -> tuple[bytes, int]:
        """What the beginning of `buffer` holds of the body, and how many bytes of `buffer` that used.

        Takes so many chunks at once that nobody else has to wait; `is_behind` says that more could be taken.

        Raises:
            MalformedHttpError: it is not what a chunked body looks like.
        """
        pieces: list[bytes | bytearray] = []
        at, count = 0, 0
        self.is_behind = False
        while self._state != _WHOLE and at < len(buffer):
            if count == MAX_CHUNKS_AT_ONCE:
                self.is_behind = True
                break
            count += 1
            before = at, self._state
            if self._state == _SIZE:
                at = self._take_chunk(buffer, at, pieces)
            elif self._state == _DATA:
                piece = buffer[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                at = self._take_data_end(buffer, at)
            else:
                at = self._take_trailer(buffer, at)
            if (at, self._state) == before:
                break
        return b"".join(pieces), at

    def _take_chunk(
        self, buffer: bytes | bytearray, at: int, pieces: list[bytes | bytearray]
    ) -> int:
        """A size, and with it the whole chunk where it is there."""
        line = _SIZE_LINE.match(buffer, at, at + MAX_LINE_BYTES)
        if line is None:
            return self._wait_for_line(buffer, at)
        size, begins = int(line[1], 16), line.end()
        # Tiny chunks and long extensions are work without a body.
        self._excess = max(0, self._excess + begins - at + 2 - FREE_BYTES - size // 2)
        if self._excess > MAX_EXCESS_BYTES:
            raise MalformedHttpError("the chunks of the body hold too little data")
        ends = begins + size
        if size and buffer[ends : ends + 2] == b"\r\n":
            pieces.append(buffer[begins:ends])
            return ends + 2
        self._left = size
        self._state = _DATA if size else _TRAILERS
        return begins

    def _take_data_end(self, buffer: bytes | bytearray, at: int) -> int:
        end = buffer[at : at + 2]
        if end == b"\r\n":
            self._state = _SIZE
            return at + 2
        if end != b"\r":
            raise MalformedHttpError("a chunk of the body is longer than its size says")
        return at

    def _take_trailer(self, buffer: bytes | bytearray, at: int) -> int:
        line = _TRAILER_LINE.match(buffer, at, at + MAX_LINE_BYTES)
        if line is None:
            return self._wait_for_line(buffer, at)
        length = line.end() - at
        self._trailer_bytes += length
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise MalformedHttpError(f"trailers may have at most {MAX_TRAILER_BYTES} bytes")
        if length == 2:
            self._state = _WHOLE
        return line.end()

    @staticmethod
    def _wait_for_line(buffer: bytes | bytearray, at: int) -> int:
        if len(buffer) - at >= MAX_LINE_BYTES or buffer.find(b"\n", at) >= 0:
            raise MalformedHttpError("the body is not chunked as RFC 9112 says")
        return at
