"""Reads a request's body, and checks it: what comes out may be sent to an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Receive

from serving.errors import RequestError
from serving.gateway.body import (
    LARGE_BYTES,
    SMALL_BYTES,
    as_object,
    discard_in_steps,
    parse,
    parse_large,
    read_text,
)
from serving.gateway.body_room import BodyShare
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.dropped import STRICT_HEADER, is_strict
from serving.gateway.pace import Pace
from serving.gateway.services import Rules, Services
from serving.gateway.turns import Turns
from serving.gateway.waiting_stream import DEADLINE_HEADER, deadline_of
from serving.tenancy.keys import Caller
from serving.trust.endpoint import Endpoint
from serving.trust.leftovers import Leftovers

# Requests of one conversation, as the client names it: they get the same arm of an alias, and replica.
SESSION_HEADER = "x-comptoir-session"
# The model that a body is for which names none; clients of some services have it in the path.
MODEL_HEADER = "x-comptoir-model"


class RequestReader:
    """Small bodies are checked at once, large ones in steps, between which others run."""

    def __init__(self, services: Services, pace: Pace) -> None:
        self._services = services
        self._pace = pace
        self._turns = Turns()

    async def read(
        self,
        rules: Rules,
        endpoint: Endpoint,
        caller: Caller,
        headers: Mapping[str, str],
        receive: Receive,
        request_id: str,
        held: BodyShare,
    ) -> CheckedRequest:
        """Check a body; return what may be sent to an engine."""
        limits, who = rules.config.limits, rules.keys.sharer(caller)

        def took(size: int) -> None:
            held.take(who, size, limits.max_held_bytes)

        left = Leftovers(is_strict=limits.strict or is_strict(headers.get(STRICT_HEADER)))
        text = await read_text(headers, receive, limits, self._pace, took)
        if len(text) <= LARGE_BYTES:
            pace = self._pace
            # A smaller one's work counts, but it has waited for its turn already.
            if len(text) > SMALL_BYTES and pace.is_full:
                await pace.enter()
            began_s = time.perf_counter()
            try:
                body = _for_model(as_object(parse(text)), headers)
                fields = endpoint.check(body, left)
                checked = self._checked(rules, endpoint, caller, headers, fields, body, request_id)
            finally:
                pace.spend(time.perf_counter() - began_s)
            return self._without(checked, left)
        async with self._services.dispatcher.semaphores.hold(caller.name):
            body = _for_model(as_object(await parse_large(text, limits, self._turns)), headers)
            del text
            fields = await self._check_large(endpoint, body, left)
            checked = self._checked(rules, endpoint, caller, headers, fields, body, request_id)
            checked.turns = self._turns
            # What is not sent on may be large, too, and to free it takes as long.
            unsent = {name: value for name, value in body.items() if name not in fields}
            body.clear()
            del fields
            await checked.pack()
            await self._let_go(unsent, left.taken)
        return self._without(checked, left)

    def _without(self, checked: CheckedRequest, left: Leftovers) -> CheckedRequest:
        """Note what was left out of it."""
        if left.named:
            checked.dropped = tuple(left.named)
            self._services.dropped.count(checked.endpoint.path, checked.dropped)
        return checked

    def _checked(
        self,
        rules: Rules,
        endpoint: Endpoint,
        caller: Caller,
        headers: Mapping[str, str],
        fields: dict[str, Any],
        body: dict[str, Any],
        request_id: str,
    ) -> CheckedRequest:
        return CheckedRequest(
            endpoint,
            caller,
            fields,
            request_id,
            headers.get(SESSION_HEADER) or _text(body, "prompt_cache_key"),
            _text(body, "user"),
            deadline_of(headers.get(DEADLINE_HEADER), rules.config.admission, time.monotonic()),
        )

    async def _check_large(
        self, endpoint: Endpoint, body: dict[str, Any], left: Leftovers
    ) -> dict[str, Any]:
        try:
            return await self._turns.run(endpoint.check_in_steps(body, left))
        except RequestError:
            await self._let_go(body, left.taken)
            raise

    async def _let_go(self, *wastes: dict[str, Any] | list[Any]) -> None:
        """Free what may be large, between others' work."""
        for waste in wastes:
            if waste:
                await self._turns.run(discard_in_steps(waste))


def _for_model(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    if body.get("model") is None and MODEL_HEADER in headers:
        body["model"] = headers[MODEL_HEADER]
    return body


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) else None
