"""A connection on which every byte is ours to choose, and whose answers a strict parser reads (h11)."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h11

from loadtests.hostile.target import Target

ANSWER_S = 10.0
_READ_BYTES = 65_536
# The most that a case reads of one answer.
_LONGEST = 64 * 1024 * 1024


class BrokenError(Exception):
    """The endpoint did something that it must not; the text says what."""


@dataclass(slots=True)
class Reply:
    """One answer: all of it, as far as it came."""

    status: int
    headers: dict[str, str]
    version: str = "1.1"
    body: bytes = b""
    # The answer came to its own end.
    is_whole: bool = False
    # Statuses of 1xx answers before it.
    interim: list[int] = field(default_factory=list)


class Wire:
    """One TCP connection to the target; use it as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._parser: h11.Connection | None = None
        self.is_ended = False
        # What `rest` has read, also where it gave up.
        self.seen = b""

    @classmethod
    async def open(cls, target: Target, receive_buffer: int | None = None) -> Self:
        """Connect.

        Args:
            receive_buffer: bytes that the kernel may hold for us; a small one makes a slow reader.
        """
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        wire = cls(sock)
        try:
            async with asyncio.timeout(ANSWER_S):
                await wire._loop.sock_connect(sock, (target.host, target.port))
        except BaseException:
            sock.close()
            raise
        return wire

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: the other end has closed the connection.
        """
        await self._loop.sock_sendall(self._sock, data)

    async def try_send(self, data: bytes, timeout_s: float = ANSWER_S) -> bool:
        """Send; whether the other end took all of it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.send(data)
        except (OSError, TimeoutError):
            return False
        return True

    def finish_sending(self) -> None:
        """Close our half of the connection (FIN), and keep listening."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a reset (RST)."""
        linger = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        """Leave."""
        self._sock.close()

    async def reply(self, method: str = "GET", timeout_s: float = ANSWER_S) -> Reply | None:
        """The next answer; None when the connection ends before one begins.

        Args:
            method: of the request that it answers: an answer to HEAD has no body.

        Raises:
            BrokenError: what comes is not an answer (RFC 9112), or none comes in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._reply(method)
        except TimeoutError:
            raise BrokenError(f"no whole answer within {timeout_s:g} s") from None
        except h11.RemoteProtocolError as error:
            raise BrokenError(f"what came is not HTTP: {error}") from None

    async def rest(self, timeout_s: float = ANSWER_S) -> bytes:
        """Everything that comes until the connection ends.

        Raises:
            BrokenError: it does not end in time.
        """
        self.seen = self._parser.trailing_data[0] if self._parser is not None else b""
        try:
            async with asyncio.timeout(timeout_s):
                while data := await self._read():
                    self.seen += data
        except TimeoutError:
            raise BrokenError(f"the connection is still open after {timeout_s:g} s") from None
        return self.seen

    async def cut_after(self, timeout_s: float) -> float:
        """Seconds until the other end closes the connection, whatever it says before.

        Raises:
            BrokenError: it does not in time.
        """
        began_s = time.monotonic()
        await self.rest(timeout_s)
        return time.monotonic() - began_s

    # ---- inside ------------------------------------------------------------------------------------------

    async def _read(self, count: int = _READ_BYTES) -> bytes:
        if self.is_ended:
            return b""
        try:
            data = await self._loop.sock_recv(self._sock, count)
        except OSError:
            data = b""
        self.is_ended = not data
        return data

    def _next_parser(self, method: str) -> h11.Connection:
        """A parser that expects one answer, and gets what the last one has left over."""
        left = self._parser.trailing_data[0] if self._parser is not None else b""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        if left:
            parser.receive_data(left)
        self._parser = parser
        return parser

    async def _reply(self, method: str) -> Reply | None:
        parser = self._next_parser(method)
        reply: Reply | None = None
        interim: list[int] = []
        size = 0
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError:
                if reply is not None and self.is_ended:
                    return reply
                raise
            if event is h11.NEED_DATA:
                data = await self._read()
                if not data and reply is None and not parser.trailing_data[0]:
                    return None
                parser.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                headers = {
                    name.decode().lower(): value.decode("latin-1") for name, value in event.headers
                }
                version = event.http_version.decode()
                reply = Reply(event.status_code, headers, version, interim=interim)
            elif isinstance(event, h11.Data):
                assert reply is not None  # noqa: S101 - h11 gives the head first
                reply.body += event.data
                size += len(event.data)
                if size > _LONGEST:
                    raise BrokenError(f"an answer of more than {_LONGEST} bytes")
            elif isinstance(event, h11.EndOfMessage):
                assert reply is not None  # noqa: S101
                reply.is_whole = True
                return reply
            else:
                return reply

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
