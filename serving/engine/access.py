"""The door of a replica: lets gateways in by token, only to listed endpoints, and counts open requests."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from serving.replica_protocol import TOKEN_HEADER

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_TOKEN = TOKEN_HEADER.encode()

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

    def __init__(self, app: ASGIApp, token: str, is_dead: Callable[[], bool]) -> None:
        self._app = app
        self._token = token.encode()
        self._is_dead = is_dead
        self.open_requests = 0
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

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.open_requests += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self._idle.set()

    def _knows(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == _TOKEN:
                return hmac.compare_digest(value, self._token)
        return False

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
