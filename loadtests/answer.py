"""Reads an OpenAI-compatible answer as it arrives and notes in its record when text came and what it cost.

It is the protocol object of httptools' parser: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

from typing import Any

import httptools
import orjson

from loadtests.record import Record

_EVENT_STREAM = b"text/event-stream"
# The body of an answer that is not streamed, or of an error: more is not read into memory.
MAX_BODY_BYTES = 64 << 20


class Answer:
    """One answer. `now_s` must be set before bytes are fed to the parser.

    Attributes:
        text: the assistant's text, when it is to be kept for the next turn.
        tool_calls: whether the answer called tools.
    """

    def __init__(self, record: Record, keep_text: bool = False) -> None:
        self._record = record
        self._keep_text = keep_text
        self._texts: list[str] = []
        self._rest = b""
        self._is_stream = False
        self._done = False
        self._last_s: float | None = None
        self.now_s = 0.0
        self.has_connection = False
        self.has_begun = False
        self.is_complete = False
        self.keeps_alive = False
        self.tool_calls = False
        self.parser: httptools.HttpResponseParser | None = None

    @property
    def text(self) -> str:
        """What the assistant said."""
        return "".join(self._texts)

    def closed(self) -> None:
        """The server closed the connection: for an answer without a length that is its end."""
        if self._is_stream and self._done and not self.is_complete:
            self.on_message_complete()

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-type":
            self._is_stream = value.lower().startswith(_EVENT_STREAM)
        elif lower == b"x-comptoir-model":
            self._record.answered_by = value.decode("latin-1")[:200]

    def on_headers_complete(self) -> None:
        assert self.parser is not None  # noqa: S101 - set before anything is fed
        status = self._record.status = self.parser.get_status_code()
        if status != 200:
            self._is_stream = False
            self._record.error = "http"

    def on_body(self, body: bytes) -> None:
        if not self._is_stream:
            self._rest += body
            if len(self._rest) > MAX_BODY_BYTES:
                raise ValueError("the answer is too long")
            return
        data = self._rest + body if self._rest else body
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        for event in events:
            self._event(event)

    def on_message_complete(self) -> None:
        assert self.parser is not None  # noqa: S101 - set before anything is fed
        if self.is_complete:
            return
        self.is_complete = True
        self.keeps_alive = self.parser.should_keep_alive()
        if self._record.status != 200:
            return
        if self._is_stream:
            if not self._done and not self._record.error:
                self._record.error = "protocol"
            return
        whole = orjson.loads(self._rest)
        self._usage(whole.get("usage"))
        choices = whole.get("choices")
        if choices:
            message = choices[0].get("message") or {}
            self.tool_calls = bool(message.get("tool_calls"))
            if self._keep_text:
                self._texts.append(message.get("content") or choices[0].get("text") or "")

    # ---- events ------------------------------------------------------------------------------------------

    def _event(self, event: bytes) -> None:
        if event.startswith(b"data: ") and b"\n" not in event:
            data = event[6:]
        else:
            lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
            if not lines:
                # A comment keeps the connection alive and says nothing.
                return
            data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
        if data == b"[DONE]":
            self._done = True
            return
        chunk = orjson.loads(data)
        if chunk.get("error"):
            self._record.error = "stream"
            return
        usage = chunk.get("usage")
        if usage:
            self._usage(usage)
        choices = chunk.get("choices")
        if choices:
            self._choice(choices[0])

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if delta is None:
            text = choice.get("text")
        else:
            text = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
            if not text and delta.get("tool_calls"):
                self.tool_calls = True
                text = " "
        if not text:
            return
        now = self.now_s
        if self._last_s is None:
            self._record.first_s = now
        else:
            self._record.gaps_ms.append(round((now - self._last_s) * 1000, 3))
        self._last_s = now
        if self._keep_text and delta is not None:
            self._texts.append(delta.get("content") or "")

    def _usage(self, usage: dict[str, Any] | None) -> None:
        if not usage:
            return
        record = self._record
        record.prompt_tokens = usage.get("prompt_tokens", -1)
        # Embeddings have no completion.
        record.output_tokens = usage.get("completion_tokens", 0)
        details = usage.get("prompt_tokens_details") or {}
        record.cached_tokens = details.get("cached_tokens") or 0
