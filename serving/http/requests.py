"""Cuts the bytes of one connection into requests: heads with httptools, bodies by the head's own framing.

httptools never sees a byte of a body: each head gets a parser of its own, which is discarded. Its state (an
`Upgrade` that was offered, for instance) can therefore never turn a body into a request. No I/O, no clock.
"""

from __future__ import annotations

import re
import urllib.parse

import httptools

from serving.errors import (
    ComptoirError,
    ExpectationFailedError,
    HeadTooLargeError,
    HttpVersionError,
    MalformedHttpError,
    MethodNotAllowedError,
    TransferEncodingError,
)
from serving.http.chunks import Chunks

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
_HEAD_END = b"\r\n\r\n"
# What a head can begin with; anything else need not be waited for.
_BEGINNING = re.compile(rb"[A-Z-]{1,20}(?: |$)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_NOTED = frozenset({b"content-length", b"transfer-encoding", b"host", b"expect"})


class Head:
    """A request line and headers; also httptools' callbacks while it is parsed."""

    __slots__ = (
        "_error",
        "_hosts",
        "_parser",
        "_target",
        "expects_continue",
        "headers",
        "is_chunked",
        "is_whole",
        "keeps_alive",
        "length",
        "method",
        "path",
        "query",
        "raw_path",
        "version",
    )

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.method = self.path = self.version = ""
        self.raw_path = self.query = self._target = b""
        self.length: int | None = None
        self.is_chunked = self.keeps_alive = self.expects_continue = self.is_whole = False
        self._hosts = 0
        self._error: ComptoirError | None = None
        self._parser: httptools.HttpRequestParser | None = None

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == MAX_HEADERS:
            self._error = HeadTooLargeError(f"a request may have at most {MAX_HEADERS} headers")
            raise self._error
        name = name.lower()
        if name in _NOTED:
            self._note(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_whole = True
        # Only here: for the parser, a request without a body is over after this.
        if self._parser is not None:
            self.keeps_alive = self._parser.should_keep_alive()

    # ---- inside ------------------------------------------------------------------------------------------

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            if value.strip().lower() == b"100-continue":
                self.expects_continue = True
            else:
                self._error = ExpectationFailedError(
                    "the only supported expectation is '100-continue'"
                )
        elif name == b"content-length":
            if self.length is not None or not value.isdigit() or len(value) > 18:
                self._error = MalformedHttpError("Content-Length must be one whole number")
            else:
                self.length = int(value)
        elif self.is_chunked or value.strip().lower() != b"chunked":
            self._error = TransferEncodingError("the only supported Transfer-Encoding is 'chunked'")
        else:
            self.is_chunked = True

    def parse(self, data: bytes) -> None:
        """Fill it from all bytes of a head.

        Raises:
            ComptoirError: it is not a head, or the request cannot be answered as it is.
        """
        parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # RFC 9110, 7.8: a server may ignore the offer. What follows is still this request's body.
            pass
        except httptools.HttpParserError:
            self.is_whole = False
        self._parser = None
        if not self.is_whole:
            raise self._error or MalformedHttpError("the request line or a header is not HTTP")
        self.method = parser.get_method().decode("ascii")
        self.version = parser.get_http_version()
        self._check()

    def _check(self) -> None:
        if self.version not in ("1.1", "1.0"):
            raise HttpVersionError("send HTTP/1.1")
        if self.method == "CONNECT":
            raise MethodNotAllowedError("this is not a proxy: CONNECT is not supported")
        if self._error is not None:
            raise self._error
        if self.is_chunked and (self.length is not None or self.version == "1.0"):
            raise MalformedHttpError(
                "Transfer-Encoding cannot be combined with Content-Length or HTTP/1.0"
            )
        if self._hosts > 1 or (not self._hosts and self.version == "1.1"):
            raise MalformedHttpError("send the header 'Host' once")
        if self.version == "1.0":
            # RFC 9110, 10.1.1: it cannot be meant.
            self.expects_continue = False
        self._split_target()

    def _split_target(self) -> None:
        target = self._target
        if not target.startswith(b"/") and target != b"*":
            absolute = _ABSOLUTE.match(target)
            if absolute is None:
                raise MalformedHttpError("the request target must be a path that begins with '/'")
            rest = target[absolute.end() :]
            target = rest if rest.startswith(b"/") else b"/" + rest
        target = target.partition(b"#")[0]
        self.raw_path, _, self.query = target.partition(b"?")
        try:
            path = self.raw_path.decode("ascii")
        except UnicodeDecodeError:
            raise MalformedHttpError(
                "the request target must be ASCII, the rest %-encoded"
            ) from None
        self.path = urllib.parse.unquote(path) if "%" in path else path


class RequestReader:
    """One request at a time: `take_head`, then `take_body` until `is_whole`, then the next head."""

    __slots__ = ("_buffer", "_chunks", "_left", "_scanned", "_skipped", "is_whole", "received")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._scanned = self._skipped = 0
        self._left = 0
        self._chunks: Chunks | None = None
        # Whether all of the last request's body has been taken, and how many bytes of it have come.
        self.is_whole = True
        self.received = 0

    @property
    def waiting_bytes(self) -> int:
        """Input that has arrived and not been taken."""
        return len(self._buffer)

    @property
    def is_behind(self) -> bool:
        """Whether `take_body` stopped early for other connections' sake, and should be called again soon."""
        return self._chunks is not None and self._chunks.is_behind

    def feed(self, data: bytes) -> None:
        """Add input that has arrived."""
        if not self._buffer:
            self._buffer = data
        else:
            if not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(self._buffer)
            self._buffer += data

    def skip(self, count: int) -> None:
        """Drop bytes at the beginning."""
        self._buffer = self._buffer[count:]

    def peek(self) -> bytes:
        """Input that has arrived and not been taken."""
        return bytes(self._buffer)

    def take_head(self) -> Head | None:
        """The next request's head; None while it is incomplete.

        Raises:
            ComptoirError: the input is not a head; nothing more on this connection can be understood.
        """
        buffer = self._buffer
        if buffer[:1] in (b"\r", b"\n"):
            # RFC 9112, 2.2: empty lines in front of a request are ignored.
            stripped = buffer.lstrip(b"\r\n")
            self._skipped += len(buffer) - len(stripped)
            self._buffer = buffer = stripped
        end = buffer.find(_HEAD_END, max(0, self._scanned - 3))
        size = self._skipped + (len(buffer) if end < 0 else end + 4)
        if size > MAX_HEAD_BYTES:
            raise HeadTooLargeError(
                f"the request line and headers may have at most {MAX_HEAD_BYTES} bytes"
            )
        if end < 0:
            if buffer and not _BEGINNING.match(buffer):
                raise MalformedHttpError("this port speaks HTTP/1.1 only")
            if _BARE_LF.search(buffer, max(0, self._scanned - 1)):
                raise MalformedHttpError("lines must end in CR LF")
            self._scanned = len(buffer)
            return None
        head = Head()
        head.parse(bytes(buffer[: end + 4]))
        self._buffer = buffer[end + 4 :]
        self._scanned = self._skipped = self.received = 0
        self._chunks = Chunks() if head.is_chunked else None
        self._left = head.length or 0
        self.is_whole = not head.is_chunked and not self._left
        return head

    def take_body(self) -> tuple[bytes, bool]:
        """The part of the body that has arrived since the last call, and whether the body is whole.

        Raises:
            MalformedHttpError: its chunks are not well-formed.
        """
        if self._chunks is not None:
            data, used = self._chunks.take(self._buffer)
            self._buffer = self._buffer[used:]
            self.is_whole = self._chunks.is_whole
        else:
            data = bytes(self._buffer[: self._left])
            self._buffer = self._buffer[len(data) :]
            self._left -= len(data)
            self.is_whole = not self._left
        self.received += len(data)
        return data, self.is_whole
