"""The meter in a replica's app: an account for each request, whose cost is reported with the answer.

Gateways collect here the costs that could not be reported that way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from serving.engine.metering import CURRENT, Account, Meter, Outcome
from serving.http_protocol import EXTENSION
from serving.replica_protocol import (
    BILLS_PATH,
    PAYER_HEADER,
    REQUEST_ID_HEADER,
    USAGE_HEADER,
    Collection,
    encode_bills,
)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_PAYER, _REQUEST_ID = PAYER_HEADER.encode(), REQUEST_ID_HEADER.encode()
_USAGE = USAGE_HEADER.encode()
_MAX_NAME = 256


def _no_reasoning(state: Mapping[str, Any]) -> int:
    return 0


class MeteredApp:
    """ASGI middleware between the door and the engine's app; it does not look into bodies.

    Args:
        reasoning: gives the reasoning tokens of an answer, by the `state` of its scope.
    """

    def __init__(
        self,
        app: ASGIApp,
        meter: Meter,
        reasoning: Callable[[Mapping[str, Any]], int] = _no_reasoning,
    ) -> None:
        self.app = app
        self._meter = meter
        self._reasoning = reasoning

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == BILLS_PATH:
            await self._collect(receive, send)
        elif scope["method"] != "POST":
            await self.app(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, payer = _names(scope)
        account = self._meter.open(request_id, payer, scope["path"])
        told = _Telling(self, account, scope, send)
        # One dictionary for every copy that the app makes of the scope.
        scope.setdefault("state", {})
        token = CURRENT.set(account)
        outcome: Outcome = "failed"
        try:
            await self.app(scope, receive, told)
            outcome = told.outcome
            if not told.is_complete or _is_lost(scope):
                outcome = "aborted"
        except asyncio.CancelledError:
            outcome = "aborted"
            raise
        finally:
            CURRENT.reset(token)
            self._meter.over(account, outcome)

    def cost(self, account: Account, state: Mapping[str, Any], outcome: Outcome) -> bytes:
        """The cost of the answer that ends now, as an encoded `Usage`; empty while unknown."""
        account.outcome = outcome
        if not account.reasoning_tokens:
            account.reasoning_tokens = self._reasoning(state)
        usage = self._meter.tell(account)
        return b"" if usage is None else str(usage).encode()

    async def _collect(self, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        call = Collection.parse(body)
        answer = b"" if call is None else encode_bills(self._meter.collect(*_args(call)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        status = 400 if call is None else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class _Telling:
    """The `send` of one request: adds its cost to the head of a whole answer, or to a stream's end."""

    __slots__ = ("_account", "_app", "_is_stream", "_scope", "_send", "is_complete", "outcome")

    def __init__(self, app: MeteredApp, account: Account, scope: Scope, send: Send) -> None:
        self._app = app
        self._account = account
        self._scope = scope
        self._send = send
        self._is_stream = False
        self.is_complete = False
        self.outcome: Outcome = "failed"

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.outcome = "ok" if message["status"] < 400 else "failed"
            headers = [*message.get("headers", ())]
            self._is_stream = _is_stream(headers)
            if not self._is_stream and (cost := self._cost()):
                message = message | {"headers": [*headers, (_USAGE, cost)]}
        elif not message.get("more_body", False):
            self.is_complete = True
            if self._is_stream and (cost := self._cost()):
                event = b": comptoir-usage " + cost + b"\n\n"
                message = message | {"body": message.get("body", b"") + event}
        await self._send(message)

    def _cost(self) -> bytes:
        # Nobody hears what is said to a client that has left.
        if _is_lost(self._scope):
            return b""
        return self._app.cost(self._account, self._scope["state"], self.outcome)


def _names(scope: Scope) -> tuple[str, str]:
    request_id = payer = b""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID:
            request_id = value
        elif name == _PAYER:
            payer = value
    return request_id[:_MAX_NAME].decode("latin-1"), payer[:_MAX_NAME].decode("latin-1")


def _args(call: Collection) -> tuple[str, tuple[str, ...]]:
    return call.gateway[:_MAX_NAME], call.acknowledged


def _is_stream(headers: list[Any]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in headers
    )


def _is_lost(scope: Scope) -> bool:
    extension = scope.get("extensions", {}).get(EXTENSION)
    return extension is not None and extension["connection"].is_lost
