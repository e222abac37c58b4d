"""Reads the body of one answer as it arrives and judges its end: complete, or the fault it has. No I/O.

Framing is here: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) and whole
bodies. What an API's objects must look like is in `dialects`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from loadtests.answers.ends import End
from serving import api

EVENT_STREAM = "text/event-stream"
# Of a body that is not streamed, or of one event: more is not read into memory.
MAX_BODY_BYTES = 64 << 20
# Tokens that can be without text: parts of one character that never became whole.
MOST_TEXTLESS_TOKENS = 4
# The server gave up; the other reasons (length, stop, tool_calls ...) end a complete answer.
ABORTS = frozenset({"abort", "aborted", "cancelled", "canceled", "error", "failed", "timeout"})
# An answer with these may be shorter than asked.
_CUT_BY_LENGTH = frozenset({"length", "max_tokens", "max_output_tokens"})


@dataclass(frozen=True, slots=True)
class Expected:
    """The properties of a good answer to a request.

    Attributes:
        path: of the endpoint, which decides the shape.
        stream: whether it must be streamed; None where either will do.
        tokens: how many tokens there must be; None where the model decides.
    """

    path: str = api.CHAT
    stream: bool | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, path: str, body: Mapping[str, Any]) -> Expected:
        """Of a request; its length is known where the model may not end it."""
        most = next((body[name] for name in api.OUTPUT_LIMITS if body.get(name)), None)
        many = (body.get("n") or 1) > 1
        tokens = most if body.get("ignore_eos") and not many else None
        return cls(path, body.get("stream") is True, tokens)


class Reading(ABC):
    """One body with status 200. Feed it bytes; then `finish` or `lost` judges its end.

    Attributes:
        failure: the first fault that was seen; "" while there is none.
        prompt_tokens, output_tokens, cached_tokens: from `usage`; -1 where it did not come.
        tool_calls: whether tools were called.
    """

    def __init__(
        self, expected: Expected, on_text: Callable[[], None] | None = None, keep_text: bool = False
    ) -> None:
        self._expected = expected
        self._on_text = on_text
        self._keep_text = keep_text
        self._texts: list[str] = []
        self._is_stream = False
        self._rest = b""
        self._pieces: list[bytes] = []
        self._size = 0
        # Finish reasons by choice; None where there was none yet.
        self._reasons: dict[Any, str | None] = {}
        self._has_text = False
        self.is_done = False
        self.failure: End = ""
        self.prompt_tokens = self.output_tokens = self.cached_tokens = -1
        self.tool_calls = False

    @property
    def text(self) -> str:
        """The assistant's text, where it was to be kept."""
        return "".join(self._texts)

    @property
    def has_begun(self) -> bool:
        """Whether the answer has begun: neither comments, which are signs of life, nor errors count."""
        return bool(self._reasons)

    def begin(self, content_type: str) -> None:
        """Begin: the headers have arrived."""
        self._is_stream = content_type.lower().startswith(EVENT_STREAM)

    def feed(self, body: bytes) -> None:
        """Feed the next bytes, cut anywhere."""
        if not self._is_stream:
            self._pieces.append(body)
            self._size += len(body)
            if self._size > MAX_BODY_BYTES:
                self._pieces.clear()
                self.fail("malformed")
            return
        data = self._rest + body if self._rest else body
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            self._frame(event)
        if len(self._rest) > MAX_BODY_BYTES:
            self.fail("malformed")

    def finish(self) -> End:
        """Finish: the body has ended, as HTTP sees it."""
        try:
            if self._is_stream:
                self._finish_stream()
            else:
                self._finish_whole()
        except (ValueError, LookupError, TypeError, AttributeError):
            self.fail("malformed")
        return self.failure

    def lost(self) -> End:
        """End: the connection was lost before the end of the body."""
        self.fail("truncated")
        return self.failure

    def fail(self, end: End) -> None:
        """Note a fault; the first one counts."""
        self.failure = self.failure or end

    # ---- of a dialect ------------------------------------------------------------------------------------

    @abstractmethod
    def _event(self, chunk: dict[str, Any]) -> None:
        """Read one event. An exception (`TypeError`, `LookupError` ...) means that it is malformed."""

    @abstractmethod
    def _whole(self, document: dict[str, Any]) -> None:
        """Read a body that is not streamed; raises as `_event` does."""

    # ---- for dialects ------------------------------------------------------------------------------------

    def _say(self, text: Any, *, keep: bool = True) -> None:
        """Note text of the answer; `keep` marks text that belongs into the next turn."""
        if text.__class__ is not str:
            raise TypeError("text is not a string")
        self._has_text = True
        if self._on_text is not None:
            self._on_text()
        if keep and self._keep_text:
            self._texts.append(text)

    def _count(self, prompt: Any, output: Any, cached: Any = 0) -> None:
        """Tokens as `usage` has them."""
        for number in (prompt, output, cached):
            if number.__class__ is not int or number < 0:
                raise TypeError("usage: not a count")
        self.prompt_tokens, self.output_tokens, self.cached_tokens = prompt, output, cached

    # ---- inside ------------------------------------------------------------------------------------------

    def _frame(self, event: bytes) -> None:
        name = b""
        if event.startswith(b"data: ") and b"\n" not in event:
            data = event[6:]
        else:
            name, found = self._fields(event)
            if name == b"error":
                self.fail("error_event")
            if found is None:
                return
            data = found
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            chunk = orjson.loads(data)
            if _is_error(chunk):
                self.fail("error_event")
            elif not self.failure:
                self._event(chunk)
        except (ValueError, LookupError, TypeError, AttributeError):
            self.fail("malformed")

    def _fields(self, event: bytes) -> tuple[bytes, bytes | None]:
        """The event's name and its data; a comment keeps the connection alive and says nothing."""
        name, data = b"", []
        for line in event.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ")
            elif field not in (b"", b"id", b"retry"):
                self.fail("malformed")
        return name, b"\n".join(data) if data else None

    def _finish_stream(self) -> None:
        if not self.is_done and self._rest.strip():
            # An event that did not end, or no events at all.
            self._fields(self._rest)
        if self._expected.stream is False:
            self.fail("malformed")
        if not self.is_done:
            self.fail("truncated")
        self._judge()

    def _finish_whole(self) -> None:
        if self.failure:
            return
        # It came all at once, as far as anybody can see.
        self._on_text = None
        document = orjson.loads(b"".join(self._pieces))
        if _is_error(document):
            self.fail("error_body")
            return
        if self._expected.stream:
            self.fail("malformed")
            return
        self._whole(document)
        self._judge()

    def _judge(self) -> None:
        """The fault of an answer that ended and whose parts are well-formed."""
        reasons = set(self._reasons.values())
        if not reasons.isdisjoint(ABORTS):
            self.fail("aborted")
        if self._reasons and None in reasons:
            self.fail("no_finish_reason")
        if not self._reasons or self._lacks_text():
            self.fail("empty")
        wanted, got = self._expected.tokens, self.output_tokens
        if wanted is not None and 0 <= got < wanted and reasons <= _CUT_BY_LENGTH:
            self.fail("short")

    def _lacks_text(self) -> bool:
        has_few = 0 < self.output_tokens <= MOST_TEXTLESS_TOKENS
        return not self._has_text and not has_few


def _is_error(document: Any) -> bool:
    """Whether it is an error in any of the forms that servers use.

    Raises:
        TypeError: it is not an object.
    """
    if document.__class__ is not dict:
        raise TypeError("not an object")
    return bool(
        document.get("error")
        or document.get("object") == "error"
        or document.get("type") == "error"
    )
