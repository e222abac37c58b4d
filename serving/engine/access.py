"""The door of a replica: admits gateways by token, only to listed endpoints, and counts open requests."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from serving import api
from serving.http_protocol import EXTENSION, ClientConnection
from serving.replica_protocol import BILLS_PATH, QUEUED_HEADER, TOKEN_HEADER

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_TOKEN = TOKEN_HEADER.encode()
_QUEUED = QUEUED_HEADER.encode()
QUEUE_MEMORY_S = 2.0
CUT_TIMEOUT_S = 2.0

# vLLM's app has many more routes (LoRA loading, sleep, scaling): none is reachable.
ENDPOINTS = frozenset(
    {*(("POST", path) for path in api.ENDPOINTS), ("GET", api.HEALTH), ("GET", api.METRICS)}
)


@dataclass(eq=False, slots=True)
class _Open:
    """A request inside; it has waited for the engine since `since_s`, as far as is known."""

    since_s: float
    client: ClientConnection | None
    task: asyncio.Task[None] | None


class GatewayDoor:
    """ASGI middleware around the engine's app; it never touches a chunk."""

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        is_dead: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._is_dead = is_dead
        self._clock = clock
        self._queued = 0
        self._queued_at_s = 0.0
        self._open: set[_Open] = set()
        self.arrived_requests = 0
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._knows(scope):
            await _answer(send, 401)
        elif scope["path"] == BILLS_PATH and scope["method"] == "POST":
            # No request to the engine, and answered when that is dead.
            await self._app(scope, receive, send)
        elif (scope["method"], scope["path"]) not in ENDPOINTS:
            await _answer(send, 404)
        elif self._is_closed or self._is_dead():
            await _answer(send, 503)
        else:
            await self._serve(scope, receive, send)

    @property
    def open_requests(self) -> int:
        """Requests inside the replica."""
        return len(self._open)

    def awaiting_since_s(self) -> float | None:
        """The time since when a request has been waiting for the engine; None if none is.

        A request with a stalled reader waits for that reader, and for the engine from now on at the earliest.
        Looks at every open request, so it is not to be called for each.
        """
        now_s, waiting = self._clock(), []
        for request in self._open:
            if request.client is not None and request.client.is_slow:
                request.since_s = now_s
            else:
                waiting.append(request.since_s)
        return min(waiting, default=None)

    @property
    def gateway_queue(self) -> int:
        """The longest queue for this model that a gateway has recently reported."""
        return self._queued if self._clock() - self._queued_at_s < QUEUE_MEMORY_S else 0

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        extension = scope.get("extensions", {}).get(EXTENSION)
        client = extension["connection"] if extension else None
        request = _Open(self._clock(), client, asyncio.current_task())
        self._open.add(request)
        self.arrived_requests += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # The replica is closing. Before an answer has begun, another replica can take the request.
            with contextlib.suppress(RuntimeError):
                await _answer(send, 503)
            raise
        finally:
            self._open.discard(request)
            if not self._open:
                self._idle.set()

    def _knows(self, scope: Scope) -> bool:
        token = queued = b""
        for name, value in scope["headers"]:
            if name == _TOKEN:
                token = token or value
            elif name == _QUEUED:
                queued = value
        if not hmac.compare_digest(token, self._token):
            return False
        if queued.isdigit():
            self._note_queue(int(queued[:9]))
        return True

    def _note_queue(self, queued: int) -> None:
        # Of several gateways the longest queue counts, as long as it is news.
        if queued >= self.gateway_queue:
            self._queued, self._queued_at_s = queued, self._clock()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until no request is open; False when `timeout_s` passed first."""
        if self._idle.is_set():
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout=timeout_s)
        except TimeoutError:
            return False
        return True

    async def cut(self) -> None:
        """End open requests, and admit no more; bills can still be collected."""
        self._is_closed = True
        tasks = [request.task for request in self._open if request.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CUT_TIMEOUT_S)


async def _answer(send: Send, status: int) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})
