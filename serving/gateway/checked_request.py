"""A request that has been checked, and small enough to wait: most of its body is kept as text.

A body in Python's objects is up to ten times as large as its text, and the garbage collector stops everything
to look at each list and object of all waiting requests. So a request is packed before it waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from serving.admission.deadline import Deadline
from serving.admission.estimate import tokens_of
from serving.gateway.body import discard_in_steps, encode, encode_in_steps
from serving.gateway.json_pieces import parse_in_steps
from serving.gateway.turns import Turns
from serving.routing.features import RequestFeatures, features_of
from serving.tenancy.keys import Caller
from serving.trust.endpoint import Endpoint
from serving.trust.fitting import FITTED

# Texts up to here stay as they are.
SMALL_CHARACTERS = 1024
# What the gateway itself writes into a body, or over it: always kept as an object.
OWN_FIELDS = frozenset({"model", "store", "cache_salt"}) | FITTED


@dataclass(slots=True)
class CheckedRequest:
    """A checked request: the tenant, the body and the endpoint.

    `body` holds what may be sent to an engine, or its small members once it is packed; `session` and `user`
    are the client's own words for whom it speaks for, and go no further than into a hash. Without a
    `deadline` it has `max_wait_s`. `turns` are for the work on a large body. `dropped` was left out of it.
    """

    endpoint: Endpoint
    caller: Caller
    body: dict[str, Any]
    request_id: str
    session: str | None = None
    user: str | None = None
    deadline: Deadline | None = None
    turns: Turns | None = None
    dropped: tuple[str, ...] = ()
    # Once it is packed: all other members, as JSON without the braces; and what is known of the whole.
    _rest: bytes | None = None
    _names: Collection[str] = ()
    _tokens: tuple[int, int | None] = (0, None)
    _features: RequestFeatures | None = None

    @property
    def names(self) -> Collection[str]:
        """The body's fields."""
        return self.body.keys() if self._rest is None else self._names

    @property
    def features(self) -> RequestFeatures:
        """The features for the rules of `auto` and for prefill; computed once."""
        if self._features is None:
            self._features = features_of(self.endpoint.path, self.body)
        return self._features

    async def pack(self) -> None:
        """Keep the body as text from now on."""
        if self._rest is not None:
            return
        whole, path = self.body, self.endpoint.path
        small, large = _split(whole)
        rest = (await _encoded(large, self.turns))[1:-1]
        self._tokens = tokens_of(path, whole, len(rest))
        self._features = self.features
        if self.turns is not None:
            # That took a millisecond or two.
            await asyncio.sleep(0)
        self._names = frozenset(whole)
        self._rest, self.body = rest, small
        if self.turns is not None:
            whole.clear()
            await self.turns.run(discard_in_steps(large))

    async def whole(self, own: dict[str, Any]) -> dict[str, Any]:
        """The whole body, with the gateway's own fields."""
        if self._rest is None:
            return self.body | own
        text = b"{%b}" % self._rest
        parsed: dict[str, Any]
        if self.turns is None:
            parsed = orjson.loads(text)
        else:
            # How much it may hold was looked at when it came.
            parsed = await self.turns.run(parse_in_steps(text, sys.maxsize))
        return parsed | self.body | own

    async def text(self, own: dict[str, Any]) -> bytes:
        """The same as JSON; packed or not, the same bytes."""
        if self._rest is None:
            small, large = _split(self.body)
            return await _encoded(small | own | large, self.turns)
        head = encode(self.body | own)
        return b"%b,%b}" % (head[:-1], self._rest) if self._rest else head

    def tokens(self, text: bytes) -> tuple[int, int | None]:
        """Tokens that it may cost (`tokens_of`)."""
        if self._rest is None:
            return tokens_of(self.endpoint.path, self.body, len(text))
        return self._tokens


def _split(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Members that stay objects, and members that are kept as text."""
    small: dict[str, Any] = {}
    large: dict[str, Any] = {}
    for name, value in body.items():
        # orjson makes no other types.
        kind = type(value)
        is_large = len(value) > SMALL_CHARACTERS if kind is str else kind in (list, dict)
        (large if is_large and name not in OWN_FIELDS else small)[name] = value
    return small, large


async def _encoded(body: dict[str, Any], turns: Turns | None) -> bytes:
    return encode(body) if turns is None else await turns.run(encode_in_steps(body))
