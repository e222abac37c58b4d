"""Reads a replica's answers off a connection: its states, and the callbacks of httptools."""

from __future__ import annotations

import asyncio
import enum

import httptools

from serving.replica_protocol import USAGE_HEADER, Usage

_USAGE = USAGE_HEADER.encode()


class State(enum.Enum):
    """The state of a connection: see serving/gateway/connection.py."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    PAUSED = enum.auto()
    ENDED = enum.auto()
    CLOSED = enum.auto()


_IDLE, _HEAD, _BODY = State.IDLE, State.HEAD, State.BODY
_PAUSED, _ENDED, _CLOSED = State.PAUSED, State.ENDED, State.CLOSED


class _ExcessError(Exception):
    """The replica sent more than one answer."""


class AnswerReader:
    """The half of a connection that the parser talks to."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.state = _IDLE
        self._forget_answer()

    def _forget_answer(self) -> None:
        self.status = 0
        self.content_type = ""
        self.usage: Usage | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._is_interim = False
        self._is_last = False
        self._timer: asyncio.TimerHandle | None = None

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.state is not _HEAD:
            raise _ExcessError

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.state is not _HEAD:
            return
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name == _USAGE:
            self.usage = Usage.parse(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # RFC 9110, 15.2: any number of them may come before the answer, and they are not it.
        self._is_interim = 100 <= status < 200
        if not self._is_interim:
            self.status = status
            self.state = _BODY

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._held_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self.content_type, self.usage = "", None
            return
        if self.state is _PAUSED and self._transport is not None:
            self._transport.resume_reading()
        self.state = _ENDED
        self._stop_timer()
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._is_last = True
            self._transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
