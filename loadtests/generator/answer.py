"""Reads an HTTP answer as it arrives, and records the times of text, the cost and the end.

It is the protocol object of httptools' parser; the body is `Reading`'s.
"""

from __future__ import annotations

import httptools

from loadtests.answers.dialects import reading
from loadtests.answers.ends import End
from loadtests.answers.reading import Expected
from loadtests.run.record import Record


class Answer:
    """One answer. `now_s` must be set before bytes are fed to the parser.

    Attributes:
        text: the assistant's text, when it is to be kept for the next turn.
        tool_calls: whether the answer called tools.
    """

    def __init__(
        self, record: Record, keep_text: bool = False, expected: Expected | None = None
    ) -> None:
        self._record = record
        self._reading = reading(expected or Expected(), self._on_text, keep_text=keep_text)
        self._content_type = ""
        self._has_length = False
        self._last_s: float | None = None
        self.now_s = 0.0
        self.has_connection = False
        self.has_begun = False
        self.is_complete = False
        self.keeps_alive = False
        self.parser: httptools.HttpResponseParser | None = None

    @property
    def text(self) -> str:
        """The assistant's text."""
        return self._reading.text

    @property
    def tool_calls(self) -> bool:
        """Whether it called tools."""
        return self._reading.tool_calls

    def closed(self) -> bool:
        """The server closed the connection: for an answer without a length that is its end. Is it whole?"""
        if self._record.status == 200 and not self._has_length and not self.is_complete:
            self.on_message_complete()
        return self.is_complete

    def lost(self) -> None:
        """The connection went before the answer was complete."""
        if not self.has_connection:
            self._ends_as("connect")
        elif self._record.status != 200:
            self._ends_as("reset")
        else:
            self._ends_as(self._reading.lost())

    def timed_out(self) -> None:
        """End: it took too long. An earlier fault is the reason."""
        self._ends_as(self._reading.failure or "timeout")

    def garbled(self) -> None:
        """End: the input is not HTTP, or not an answer of the API."""
        self._ends_as(self._reading.failure or "malformed")

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-type":
            self._content_type = value.decode("latin-1")
        elif lower in (b"content-length", b"transfer-encoding"):
            self._has_length = True
        elif lower == b"x-comptoir-model":
            self._record.answered_by = value.decode("latin-1")[:200]

    def on_headers_complete(self) -> None:
        assert self.parser is not None  # noqa: S101 - set before anything is fed
        status = self._record.status = self.parser.get_status_code()
        if status != 200:
            self._ends_as("http")
        self._reading.begin(self._content_type)

    def on_body(self, body: bytes) -> None:
        if self._record.status != 200:
            return
        reading = self._reading
        reading.feed(body)
        if reading.failure == "malformed":
            # Whoever talks so may never end; the connection is closed.
            raise ValueError("malformed")

    def on_message_complete(self) -> None:
        assert self.parser is not None  # noqa: S101 - set before anything is fed
        if self.is_complete:
            return
        self.is_complete = True
        self.keeps_alive = self.parser.should_keep_alive()
        if self._record.status == 200:
            self._ends_as(self._reading.finish())

    # ---- the record --------------------------------------------------------------------------------------

    def _ends_as(self, end: End) -> None:
        record, read = self._record, self._reading
        record.error = record.error or end
        record.prompt_tokens, record.output_tokens = read.prompt_tokens, read.output_tokens
        record.cached_tokens = read.cached_tokens

    def _on_text(self) -> None:
        now = self.now_s
        if self._last_s is None:
            self._record.first_s = now
        else:
            self._record.gaps_ms.append(round((now - self._last_s) * 1000, 3))
        self._last_s = now
