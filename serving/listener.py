"""An HTTP server inside a running event loop: how gateways and replicas serve their ASGI apps.

Ray Serve's own ingress costs a hop and a wrapper per chunk, so both sides listen for themselves
(docs/architecture.md gives the figures).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import resource
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from serving.config.connections import ConnectionsConfig
from serving.errors import StackError
from serving.http.connection import HttpConnection
from serving.http.server import Server
from serving.http.table import ConnectionTable
from serving.syn_filter import kernel_migrates, take_no_new
from serving.tcp import probe_when_silent

# A silent connection is probed; it ends when its other end has not answered for half a minute.
PROBE_AFTER_S = 15
PROBE_EVERY_S = 5
PROBES = 3
# What the kernel holds of an answer beyond what is on its way. Without this bound it takes megabytes for each
# client that does not read, and hides that it does not.
UNSENT_BYTES = 128 * 1024

# How often limits on time are looked at, unless one of them is shorter.
CHECK_EVERY_S = 0.25
# Requests that were told that the listener closes have so long to end.
CUT_S = 2.0
# What is written then has so long to leave.
FLUSH_S = 1.0
BACKLOG = 2048
# Longer than most ways over a network and back, and shorter than the second after which a client repeats its
# first packet: whoever comes meanwhile is that much later.
HANDSHAKE_S = 0.1
# Files that are not connections of clients: each request may need one to a replica, too.
OTHER_FILES = 256


class Listener:
    """Serves one ASGI app on one address until it is closed."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int = 0,
        *,
        share_port: bool = False,
        connections: ConnectionsConfig | None = None,
    ) -> None:
        """Bind at once, so that a taken port is known before anything heavy starts.

        Args:
            app: an ASGI 3 application.
            host: address to listen on.
            port: TCP port; 0 takes a free one.
            share_port: let several replicas on one node listen on the same port (SO_REUSEPORT).
            connections: limits on connections; the defaults are a public endpoint's.

        Raises:
            StackError: the address cannot be bound; the message says which and why.
        """
        self._socket = _bind(host, port, share_port)
        self._shares_port = share_port
        self._app = app
        self._limits = connections or ConnectionsConfig()
        self.table = ConnectionTable(self._limits, _connections_possible())
        self._server: asyncio.Server | None = None
        self._protocol: Callable[[], HttpConnection] | None = None
        self._timer: asyncio.TimerHandle | None = None
        limits = self._limits
        shortest_s = min(limits.head_timeout_s, limits.body_timeout_s, limits.idle_timeout_s)
        shortest_s = min(shortest_s, limits.write_stall_s, limits.linger_s)
        self._period_s = min(CHECK_EVERY_S, max(0.005, shortest_s / 4))

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._socket.getsockname()[1])

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return self._server is not None and self._server.is_serving()

    async def start(self) -> None:
        """Accept connections; returns as soon as the first one would be answered."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        server = Server(self._app, self._limits, self.table, loop, context)
        self._protocol = partial(HttpConnection, server)
        self._server = await loop.create_server(self._protocol, sock=self._socket, backlog=BACKLOG)
        self._check()

    def begin_drain(self) -> None:
        """Lame duck: go on accepting and answering, but tell clients not to come back on their connection.

        The order of a stop without a gap: `/ready` says 503, `begin_drain()`, wait until balancers have seen
        it, then `close(grace_s)`, which does the rest: takes what waits to be accepted and accepts no more,
        ends idle connections, waits for open requests, and has those that are left end
        (`ClientConnection.on_shutdown`).
        """
        self.table.is_draining = True

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop accepting, let open requests finish for `grace_s`, then have them end, then cut them."""
        if self._server is None or self._protocol is None:
            self._socket.close()
            return
        self.begin_drain()
        await self._stop_accepting(self._server, self._protocol)
        table = self.table
        for connection in list(table.connections):
            connection.retire()
        if not await table.settled(grace_s):
            for connection in list(table.connections):
                if connection.exchange is not None:
                    connection.exchange.cut()
            await table.settled(CUT_S if grace_s else 0.1)
        for connection in list(table.connections):
            connection.close()
        if not await table.settled(FLUSH_S if grace_s else 0.1, empty=True):
            for connection in list(table.connections):
                connection.abort()
            await table.settled(FLUSH_S, empty=True)
        if self._timer is not None:
            self._timer.cancel()

    async def _stop_accepting(
        self, server: asyncio.Server, protocol: Callable[[], HttpConnection]
    ) -> None:
        """Take every connection that the kernel has made for this socket: closing it would reset them."""
        if not server.is_serving():
            return
        loop = asyncio.get_running_loop()
        if self._shares_port and not kernel_migrates():
            with contextlib.suppress(OSError):
                take_no_new(self._socket)
                # Handshakes that are under way end meanwhile, and are accepted.
                await asyncio.sleep(HANDSHAKE_S)
        own = self._socket.dup()
        # From now on the kernel makes (nearly) no new ones; where the port is shared, others get them.
        own.listen(0)
        waiting = []
        with contextlib.suppress(OSError):
            while True:
                waiting.append(own.accept()[0])
        server.close()
        own.close()
        self._socket.close()
        for accepted in waiting:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(protocol, accepted)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._period_s, self._check)
        self.table.check(loop.time())


def _connections_possible() -> int:
    """Raise the limit on open files as far as it goes; returns how many connections that is good for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(16, (soft - OTHER_FILES) // 2) if soft != resource.RLIM_INFINITY else 1_000_000


def _bind(host: str, port: int, share_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    # Accepted ones inherit this. No user timeout: it would also end those of clients that are there and read
    # slowly.
    probe_when_silent(sock, PROBE_AFTER_S, PROBE_EVERY_S, PROBES)
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
