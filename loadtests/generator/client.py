"""A streaming HTTP client under gevent: every event of an answer is timed when the kernel hands it over.

Locust's own client reads streams in blocks of 1,024 bytes, so events arrive in lumps and TTFT and ITL come
out wrong; here nothing is held back. One request at a time on a connection, connections are kept.
"""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import gevent
import httptools
from gevent import socket as gsocket
from gevent import ssl as gssl

from loadtests.answers.reading import Expected
from loadtests.generator.answer import Answer
from loadtests.run.record import Record
from serving.errors import ConfigError

READ_BYTES = 1 << 16
# Idle connections kept; more are closed.
MAX_IDLE = 4096


@dataclass(frozen=True)
class Endpoint:
    """The target of requests."""

    host: str
    port: int
    base_path: str = ""
    tls: bool = False
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """From a URL, with or without `/v1` at its end.

        Raises:
            ConfigError: it is no HTTP address.
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ConfigError(
                f"url: '{url}' is no address; write it like http://127.0.0.1:8000", param="url"
            )
        tls = parts.scheme == "https"
        base = parts.path.rstrip("/").removesuffix("/v1")
        basic = None
        if parts.username is not None:
            pair = f"{parts.username}:{parts.password or ''}"
            basic = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname, port or (443 if tls else 80), base, tls, basic)

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Client:
    """Sends requests and fills in their records.

    Args:
        clock: seconds since the run began.
        timeout_s: of one whole request.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        clock: Callable[[], float] = time.perf_counter,
        timeout_s: float = 120.0,
        verify_tls: bool = True,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout_s = timeout_s
        self._idle: list[gsocket.socket] = []
        self._tls = _tls_context(verify_tls) if endpoint.tls else None

    def request_bytes(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The request as it goes over the wire, so that nothing is left to do when its time comes."""
        lines = [
            f"POST {self._endpoint.base_path}{path} HTTP/1.1",
            f"host: {self._endpoint.authority}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "user-agent: comptoir-load",
        ]
        if self._endpoint.authorization and "authorization" not in headers:
            lines.append(f"authorization: {self._endpoint.authorization}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def ask(
        self,
        request: bytes,
        record: Record,
        *,
        keep_text: bool = False,
        expected: Expected | None = None,
    ) -> Answer:
        """Send one request and read its answer to the end; `record` says how it went. Never raises.

        `expected` says what a good answer is; by default any chat completion.

        Times, `status`, `error`, tokens and gaps of the record are set. A greenlet that
        is killed meanwhile leaves the error "cancelled".
        """
        answer = Answer(record, keep_text, expected)
        record.sent_s = self._clock()
        timeout = gevent.Timeout.start_new(self._timeout_s)
        try:
            self._exchange(request, record, answer)
        except gevent.Timeout as fired:
            if fired is not timeout:
                record.error = "cancelled"
                raise
            answer.timed_out()
        except gevent.GreenletExit:
            record.error = "cancelled"
            raise
        except OSError:
            answer.lost()
        except (httptools.HttpParserError, ValueError):
            answer.garbled()
        finally:
            timeout.close()
            record.end_s = self._clock()
        return answer

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    # ---- inside ------------------------------------------------------------------------------------------

    def _exchange(self, request: bytes, record: Record, answer: Answer) -> None:
        connection = self._idle.pop() if self._idle else None
        if connection is not None:
            answer.has_connection = True
            try:
                self._send_and_read(connection, request, answer)
            except (ConnectionError, BrokenPipeError):
                # The server may have closed it while it was idle. Nothing came back, so ask anew, once.
                if answer.has_begun:
                    raise
            else:
                return
        answer.has_connection = False
        connection = self._connect()
        answer.has_connection = True
        self._send_and_read(connection, request, answer)

    def _send_and_read(self, connection: gsocket.socket, request: bytes, answer: Answer) -> None:
        is_whole = False
        try:
            connection.sendall(request)
            parser = httptools.HttpResponseParser(answer)
            answer.parser = parser
            receive, feed, clock = connection.recv, parser.feed_data, self._clock
            while not answer.is_complete:
                data = receive(READ_BYTES)
                answer.now_s = clock()
                if not data:
                    if not answer.closed():
                        raise ConnectionResetError("closed")
                    break
                feed(data)
            is_whole = answer.keeps_alive
        finally:
            # The two hold each other; without this only the garbage collector would free them.
            answer.parser = None
            if is_whole and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    def _connect(self) -> gsocket.socket:
        connection = gsocket.create_connection((self._endpoint.host, self._endpoint.port))
        connection.setsockopt(gsocket.IPPROTO_TCP, gsocket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        return self._tls.wrap_socket(connection, server_hostname=self._endpoint.host)


def _tls_context(verify: bool) -> gssl.SSLContext:
    context = gssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
