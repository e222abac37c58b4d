"""Decompresses a gzip body piece by piece, so that a limit can apply meanwhile."""

from __future__ import annotations

import zlib

from serving.errors import MalformedJsonError, UnsupportedEncodingError

# Others run after so much has been unpacked.
PIECE_BYTES = 256 * 1024


class Gunzip:
    """One gzip stream; `rest` is the part of the last piece that is not decompressed yet."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.rest = b""

    def some(self, data: bytes) -> bytes:
        """At most PIECE_BYTES of the decompressed `data`; go on with `rest`.

        Raises:
            MalformedJsonError: it is not valid gzip.
        """
        try:
            part = self._stream.decompress(data, PIECE_BYTES)
        except zlib.error:
            raise MalformedJsonError("the body is not valid gzip") from None
        self.rest = self._stream.unconsumed_tail
        if self._stream.unused_data:
            raise MalformedJsonError("the body has data after its gzip stream")
        return part

    def check_end(self) -> None:
        """Raises: MalformedJsonError: the stream goes on after the body's end."""
        if not self._stream.eof:
            raise MalformedJsonError("the body's gzip stream is not complete")


def unpacker(encoding: str) -> Gunzip | None:
    """The decompressor for this `Content-Encoding`; None: the body is not compressed.

    Raises:
        UnsupportedEncodingError: another encoding.
    """
    name = encoding.strip().lower()
    if name in ("gzip", "x-gzip"):
        return Gunzip()
    if name in ("identity", ""):
        return None
    raise UnsupportedEncodingError("the only supported Content-Encoding is gzip")
