"""An HTTP server inside a running event loop: how gateways and replicas serve their ASGI apps.

Ray Serve's own ingress costs a hop and a wrapper per chunk, so both sides listen for themselves
(docs/architecture.md gives the figures).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from serving.errors import StackError
from serving.http_protocol import BoundedHttp

# A silent connection is probed; it ends when its other end has not answered for half a minute.
PROBE_AFTER_S = 15
PROBE_EVERY_S = 5
PROBES = 3


class _EmbeddedServer(uvicorn.Server):
    """A uvicorn server that leaves the process's signals alone: they belong to Ray's worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class Listener:
    """Serves one ASGI app on one address until it is closed."""

    def __init__(self, app: Any, host: str, port: int = 0, *, share_port: bool = False) -> None:
        """Bind at once, so that a taken port is known before anything heavy starts.

        Args:
            app: an ASGI 3 application.
            host: address to listen on.
            port: TCP port; 0 takes a free one.
            share_port: let several replicas on one node listen on the same port (SO_REUSEPORT).

        Raises:
            StackError: the address cannot be bound; the message says which and why.
        """
        self._socket = _bind(host, port, share_port)
        self._server = _EmbeddedServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                http=BoundedHttp,
                ws="none",
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=75,
                # Tracebacks of handlers may hold request text; the apps report errors themselves.
                log_level="critical",
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Accept connections; returns as soon as the first one would be answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise StackError("the HTTP listener stopped while it started")
            await asyncio.sleep(0.01)

    def begin_drain(self) -> None:
        """Lame duck: go on accepting and answering, but tell clients not to come back on their connection.

        The order of a stop without a gap: `/ready` says 503, `begin_drain()`, wait until balancers have seen
        it, then `close(grace_s)`, which does the rest: takes what waits to be accepted and accepts no more,
        ends idle connections, waits for open requests, and has those that are left end
        (`ClientConnection.on_shutdown`).
        """

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop accepting, let open requests finish for `grace_s` seconds, then cut them."""
        if self._task is None:
            self._socket.close()
            return
        self._server.config.timeout_graceful_shutdown = grace_s  # type: ignore[assignment]
        self._server.should_exit = True
        await self._task
        self._socket.close()


def _watch_peers(sock: socket.socket) -> None:
    """Let the kernel end connections whose other end has vanished; accepted ones inherit this.

    Without a user timeout: it would also end those of clients that are there and read slowly.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


def _bind(host: str, port: int, share_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _watch_peers(sock)
    if share_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise StackError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port "
            "(`--port`, COMPTOIR_PORT) or stop what uses it",
            param="port",
        ) from None
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock
