"""The writing of answers: status line, headers, framing (RFC 9112, 6 and 7), and errors of this layer."""

from __future__ import annotations

import enum
import http
from collections.abc import Iterable

import orjson

from serving.errors import ComptoirError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Framing(enum.Enum):
    """The way in which the end of an answer's body is marked."""

    NONE = enum.auto()  # there is no body
    LENGTH = enum.auto()
    CHUNKED = enum.auto()
    UNTIL_CLOSE = enum.auto()


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


class AnswerHead:
    """The head of one answer, framed for the request that it answers.

    Attributes:
        data: as it goes over the wire.
        length: what Content-Length promises; 0 without.
        closes: whether the connection ends with this answer.
    """

    __slots__ = ("closes", "data", "framing", "length")

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        version: str = "1.1",
        is_head: bool = False,
        closes: bool = False,
    ) -> None:
        """Raises: RuntimeError: a header would end the head, or begin another one."""
        lines = [_STATUS_LINES[status]]
        length: int | None = None
        for name, value in headers:
            kind = name.lower()
            if kind == b"content-length":
                length = int(value)
            elif kind == b"connection":
                # Only the end of the connection is the application's to ask for.
                closes = closes or b"close" in value.lower()
                continue
            elif kind == b"transfer-encoding":
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        self.length = length or 0
        if is_head or status in (204, 304):
            self.framing = Framing.NONE
        elif length is not None:
            self.framing = Framing.LENGTH
        elif version == "1.1":
            self.framing = Framing.CHUNKED
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            self.framing, closes = Framing.UNTIL_CLOSE, True
        self.closes = closes
        if closes:
            lines.append(b"connection: close\r\n")
        elif version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        count = len(lines)
        lines.append(b"\r\n")
        self.data = b"".join(lines)
        if (
            self.data.count(b"\n") != count + 1
            or self.data.count(b"\r") != count + 1
            or b"\0" in self.data
        ):
            raise RuntimeError("a header of the answer holds a line break")


def error_answer(error: ComptoirError, *, is_head: bool = False) -> bytes:
    """The whole answer for input that never reaches the application; the connection ends with it."""
    body = orjson.dumps(error.as_openai())
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if error.status == 405:
        headers.append((b"allow", b"GET, HEAD, POST"))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    head = AnswerHead(error.status, headers, is_head=is_head, closes=True)
    return head.data if is_head else head.data + body
