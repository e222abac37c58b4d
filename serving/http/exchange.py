"""One request and its answer: ASGI's `receive` and `send`, and the `ClientConnection` of the scope."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serving.errors import PLACE_RETRY_S, ComptoirError, ShuttingDownError
from serving.http.answers import CONTINUE, LAST_CHUNK, AnswerHead, Framing
from serving.http.requests import Head
from serving.http_protocol import EXTENSION

if TYPE_CHECKING:
    from serving.http.connection import HttpConnection

logger = logging.getLogger("ray.serve.comptoir")

# The application may leave so much of a body unread before no more of it is taken in.
MAX_UNREAD_BYTES = 64 * 1024
_CHUNKED, _LENGTH = Framing.CHUNKED, Framing.LENGTH
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Exchange:
    """Lives from the end of the request's head to the end of its answer; after that it is inert.

    Whatever still holds it cannot write into the answer of the next request.
    """

    __slots__ = (
        "_connection",
        "_expects_continue",
        "_framing",
        "_head",
        "_held",
        "_left",
        "_pieces",
        "_told_end",
        "_transport",
        "_unread",
        "_wake",
        "body_is_whole",
        "closes",
        "has_begun",
        "is_cut",
        "is_lost",
        "is_over",
        "on_lost",
        "on_shutdown",
        "on_writable",
        "task",
    )

    def __init__(
        self, connection: HttpConnection, head: Head, transport: asyncio.Transport
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._head = head
        self._expects_continue = head.expects_continue
        self._pieces: list[bytes] = []
        self._unread = 0
        self._told_end = False
        self._wake: asyncio.Event | None = None
        self._framing = Framing.NONE
        # The answer's head, until there is something of its body: the two leave in one packet (ASGI, too,
        # wants nothing sent before).
        self._held = b""
        self._left = 0
        self.body_is_whole = False
        self.closes = not head.keeps_alive
        self.has_begun = self.is_over = self.is_lost = self.is_cut = False
        self.on_lost: Callable[[], Any] | None = None
        self.on_writable: Callable[[], Any] | None = None
        self.on_shutdown: Callable[[], Any] | None = None
        self.task: asyncio.Task[None] | None = None

    # ---- for the connection ------------------------------------------------------------------------------

    async def run(self, app: Any) -> None:
        """Call the application; in any case there is an answer, or the connection ends."""
        try:
            await app(self._scope(), self.receive, self.send)
        except asyncio.CancelledError:
            if not self.is_lost and not self.is_cut:
                raise
        except Exception as error:  # noqa: BLE001 - the last resort; its text may hold the client's
            if not self.is_lost:
                logger.error("unexpected %s in an ASGI application", type(error).__name__)
        finally:
            if not self.is_over and not self.is_lost:
                self._give_up()

    def body_arrived(self, data: bytes, *, is_whole: bool) -> None:
        """Take more of the body."""
        self.body_is_whole = is_whole
        if data:
            self._expects_continue = False
            if self.is_over:
                return
            self._pieces.append(data)
            self._unread += len(data)
        if self._wake is not None:
            self._wake.set()

    @property
    def is_head(self) -> bool:
        """Whether the request is a HEAD, whose answer has no body."""
        return self._head.method == "HEAD"

    @property
    def has_enough(self) -> bool:
        """Whether the application should read before more of the body is accepted."""
        return self._unread > MAX_UNREAD_BYTES

    @property
    def can_be_probed(self) -> bool:
        """Whether a byte without meaning can be sent to the client."""
        if self.has_begun and not self._held:
            return self._framing is _CHUNKED
        return self._head.version == "1.1"

    def probe(self) -> None:
        """Send a byte without meaning, which a client that has closed its connection answers with a reset."""
        # A chunk's size may begin with any number of zeros; an interim answer means nothing by itself.
        self._transport.write(b"0" if self.has_begun and not self._held else CONTINUE)

    def lose(self) -> None:
        """Note that the client has gone, or that its request was invalid."""
        if self.is_lost or self.is_over:
            return
        self.is_lost = True
        self.wake()
        if self.on_lost is not None:
            self.on_lost()

    def cut(self) -> None:
        """End the request: the listener closes and waits no longer."""
        if self.is_over or self.is_lost or self.is_cut:
            return
        self.is_cut = self.closes = True
        if self.on_shutdown is not None:
            self.on_shutdown()
        elif self.task is not None:
            self.task.cancel()

    def wake(self) -> None:
        """Wake the waiter in `receive` or `send` after a change."""
        if self._wake is not None:
            self._wake.set()

    # ---- ASGI --------------------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """https://asgi.readthedocs.io/en/latest/specs/www.html#request-receive-event."""
        if self._expects_continue and not self.has_begun and not self.is_lost:
            self._expects_continue = False
            self._transport.write(CONTINUE)
        while not self.is_lost and not self.is_over:
            if self._pieces or (self.body_is_whole and not self._told_end):
                pieces, self._pieces = self._pieces, []
                self._unread = 0
                self._told_end = self.body_is_whole
                if not self.body_is_whole:
                    self._connection.body_was_read()
                body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                return {"type": "http.request", "body": body, "more_body": not self._told_end}
            await self._sleep()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """https://asgi.readthedocs.io/en/latest/specs/www.html#response-start-send-event."""
        while self._connection.is_slow and not self.is_lost:
            await self._sleep()
        if self.is_lost:
            return
        kind = message["type"]
        if not self.has_begun and kind == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        elif self.has_begun and not self.is_over and kind == "http.response.body":
            if message.get("more_body", False):
                self._send_body(message.get("body", b""))
            else:
                self._end(message.get("body", b""))
        else:
            raise RuntimeError(f"{kind} does not fit here")

    async def _sleep(self) -> None:
        if self._wake is None:
            self._wake = asyncio.Event()
        self._wake.clear()
        await self._wake.wait()

    def _scope(self) -> dict[str, Any]:
        head, connection = self._head, self._connection
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.version,
            "server": connection.peer.server,
            "client": connection.peer.client,
            "scheme": "http",
            "root_path": "",
            # RFC 9110, 9.3.2: a HEAD is answered as a GET, without the body.
            "method": "GET" if head.method == "HEAD" else head.method,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers,
            "state": {},
            "extensions": {EXTENSION: {"connection": self}},
        }

    def _begin(self, status: int, headers: Any) -> None:
        head = self._head
        answer = AnswerHead(
            status,
            headers,
            version=head.version,
            is_head=head.method == "HEAD",
            # What is left of a body that nobody read would have to be read before the next request.
            closes=self.closes or not self.body_is_whole or self._connection.is_last,
        )
        self.has_begun = True
        self._framing, self._left, self.closes = answer.framing, answer.length, answer.closes
        self._held = answer.data

    def _write(self, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        if data:
            self._transport.write(data)

    def _send_body(self, data: bytes) -> None:
        if self._framing is _LENGTH:
            self._left -= len(data)
            if self._left < 0:
                raise RuntimeError("the answer is longer than its Content-Length")
            self._write(data)
        else:
            self.write(data)

    def _end(self, data: bytes) -> None:
        framing = self._framing
        if framing is _LENGTH and len(data) == self._left:
            # Most answers.
            self._left = 0
            self._write(data)
        elif framing is _CHUNKED:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else LAST_CHUNK
            self._write(last)
        else:
            self._send_body(data)
        if self._held:
            # An answer without a body.
            self._write(b"")
        if framing is _LENGTH and self._left:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self._finish()

    def _give_up(self) -> None:
        """Give up on an application that ended without an answer, or in the middle of one."""
        if self.has_begun:
            self.is_over = True
            self._write(b"")
            framed = self._framing in (Framing.CHUNKED, Framing.LENGTH)
            self._connection.break_off(has_framing=framed)
            return
        error = (
            ShuttingDownError("the server is shutting down; try again", retry_after_s=PLACE_RETRY_S)
            if self.is_cut
            else ComptoirError("internal error")
        )
        self._connection.refuse(error)

    def _finish(self) -> None:
        self.is_over = True
        self.on_lost = self.on_writable = self.on_shutdown = None
        if self._wake is not None:
            self._wake.set()
        self._connection.answered(self)

    # ---- ClientConnection --------------------------------------------------------------------------------

    @property
    def is_slow(self) -> bool:
        return self._connection.is_slow

    def recognised(self, who: str = "") -> None:
        self._connection.recognise(self, who)

    def write(self, data: bytes) -> None:
        if not data or self.is_lost or self.is_over or not self.has_begun:
            return
        if self._framing is _CHUNKED:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))
        elif self._framing is Framing.UNTIL_CLOSE:
            self._write(data)
        elif self._framing is _LENGTH:
            raise RuntimeError("`write` is for answers without a content-length")
