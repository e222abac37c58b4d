"""Waiting as a client sees it: the deadline that it names, and signs of life in its stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.types import Send

from serving.admission.deadline import Deadline
from serving.config.admission import AdmissionConfig
from serving.errors import ComptoirError, InvalidFieldError
from serving.gateway.render import Dialect, error_event, raw_headers
from serving.gateway.streaming import send_within
from serving.http_protocol import ClientConnection

DEADLINE_HEADER = "x-comptoir-deadline-ms"


def deadline_of(value: str | None, config: AdmissionConfig, now: float) -> Deadline:
    """The deadline of a request: from `x-comptoir-deadline-ms`, or after `max_wait_s`.

    Raises:
        InvalidFieldError: it is not a whole number of milliseconds within bounds.
    """
    if value is None:
        return Deadline(now + config.max_wait_s)
    longest_ms = int(config.max_deadline_s * 1000)
    text = value.strip()
    # The length is bounded before `int`; `isdecimal` alone takes the digits of every script.
    if text.isascii() and text.isdecimal() and len(text) <= 10 and 0 < int(text) <= longest_ms:
        return Deadline(now + int(text) / 1000, is_named=True)
    raise InvalidFieldError(
        f"the header {DEADLINE_HEADER} must be a whole number of milliseconds from 1 to {longest_ms}",
        param=DEADLINE_HEADER,
    )


class WaitingStream:
    """The `on_wait` of a streaming request: begins its answer, then sends comments while it waits.

    Once `has_begun`, the head must not be sent again, and an error can only be the stream's last event.
    """

    def __init__(
        self, headers: Callable[[], Mapping[str, str]], client: ClientConnection, send: Send
    ) -> None:
        """Args: headers: of the answer; asked for only when one begins here."""
        self._headers = headers
        self._client = client
        self._send = send
        self.has_begun = False

    async def __call__(self, waited_s: float) -> None:
        """Send a sign of life; nothing to a client that does not even read what it has been sent."""
        if self._client.is_slow:
            return
        if not self.has_begun:
            headers = raw_headers(self._headers())
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        # https://html.spec.whatwg.org/multipage/server-sent-events.html: a line with a colon in front.
        self._client.write(b": waiting\n\n")

    async def fail(self, error: ComptoirError, dialect: Dialect) -> None:
        """End a stream that has begun with an error event, in the dialect of its path."""
        event = error_event(error, dialect)
        await send_within(self._client, self._send, {"type": "http.response.body", "body": event})
