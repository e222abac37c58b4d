"""The door of a replica: lets gateways in by token, only to listed endpoints, and counts open requests."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

from serving.replica_protocol import QUEUED_HEADER, TOKEN_HEADER

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_TOKEN = TOKEN_HEADER.encode()
_QUEUED = QUEUED_HEADER.encode()
QUEUE_MEMORY_S = 2.0

# vLLM's app has many more routes (tokenize, LoRA loading, sleep, scaling): none is reachable.
ENDPOINTS = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("POST", "/v1/score"),
        ("GET", "/health"),
        ("GET", "/metrics"),
    }
)


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
        self.open_requests = 0
        self.arrived_requests = 0
        self.busy_since_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._knows(scope):
            await _answer(send, 401)
        elif (scope["method"], scope["path"]) not in ENDPOINTS:
            await _answer(send, 404)
        elif self._is_dead():
            await _answer(send, 503)
        else:
            await self._serve(scope, receive, send)

    @property
    def gateway_queue(self) -> int:
        """The longest queue that a gateway lately said it has for this model."""
        return self._queued if self._clock() - self._queued_at_s < QUEUE_MEMORY_S else 0

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.open_requests:
            self.busy_since_s = self._clock()
        self.open_requests += 1
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
            self.open_requests -= 1
            if not self.open_requests:
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


async def _answer(send: Send, status: int) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})
