"""Makes an order for replicas out of a checked request: its body, its prompt's hashes, a computed prompt."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from serving.gateway.admission import Estimate
from serving.gateway.body import encode, encode_in_steps
from serving.gateway.forwarding import Forwarder
from serving.gateway.orders import UNKNOWN, Order
from serving.gateway.prefill import Prefill
from serving.gateway.turns import Turns
from serving.routing.choice import RoutedRequest
from serving.routing.deadline import Deadline
from serving.routing.directory import Model
from serving.routing.estimate import tokens_of
from serving.routing.prompt_prefix import EMPTY, prompt_prefix, session_key, tenant_salt
from serving.routing.quarantine import Suspect
from serving.routing.rules import Candidate
from serving.settings import GatewayConfig
from serving.tenancy.keys import Caller
from serving.trust.fields import Endpoint


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has been checked: who asks what of which endpoint.

    `body` holds what may be sent to an engine; `session` and `user` are the client's own words for whom it
    speaks for, and go no further than into a hash. Without a `deadline` it has `max_wait_s`. `turns` are for
    the work on a large body.
    """

    endpoint: Endpoint
    caller: Caller
    body: dict[str, Any]
    request_id: str
    session: str | None = None
    user: str | None = None
    deadline: Deadline | None = None
    turns: Turns | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as it goes to one candidate, before and after it was encoded."""

    asked: Asked
    candidate: Candidate
    body: dict[str, Any]
    encoded: bytes

    @property
    def estimate(self) -> Estimate:
        """What it may cost; put right when the engine has counted."""
        path = self.asked.endpoint.path
        return Estimate(*tokens_of(path, self.body, len(self.encoded)))

    @property
    def suspect(self) -> Suspect:
        """The request as the quarantine knows it."""
        path, model_id = self.asked.endpoint.path, self.candidate.model_id
        return Suspect(self.asked.caller.name, model_id, path, self.encoded)


class Preparation:
    """What of a request is made for one candidate."""

    def __init__(self, config: GatewayConfig, forwarder: Forwarder, prefill: Prefill) -> None:
        self._config = config
        self._forwarder = forwarder
        self._prefill = prefill

    async def prepare(self, asked: Asked, candidate: Candidate) -> Prepared:
        """The request as this candidate reads it."""
        body = asked.body | {"model": candidate.served_name}
        if asked.endpoint.path == "/v1/responses":
            body["store"] = False
        if asked.caller.cache_salt is not None:
            body["cache_salt"] = asked.caller.cache_salt
        if asked.turns is None:
            encoded = encode(body)
        else:
            encoded = await asked.turns.run(encode_in_steps(body))
        return Prepared(asked, candidate, body, encoded)

    async def order(
        self, prepared: Prepared, model: Model, queued: int, deadline: Deadline
    ) -> Order:
        """What goes to the forwarder, once a prefill replica has computed a prompt that is one for it."""
        asked, candidate, body = prepared.asked, prepared.candidate, prepared.body
        path, model_id, encoded = asked.endpoint.path, candidate.model_id, prepared.encoded
        prefills = self._prefill.wants(model, path, body, len(encoded))
        prompt = EMPTY
        # It is hashed only where that decides something.
        if self._forwarder.reads_prompts(model_id) or (
            prefills and self._prefill.forwarder.reads_prompts(model_id)
        ):
            if asked.turns is not None:
                # Hashing takes milliseconds then, and there was other work before it.
                await asyncio.sleep(0)
            prompt = prompt_prefix(
                path,
                body,
                tenant_salt(asked.caller.cache_salt, candidate.served_name),
                self._config.replica_routing.block_bytes,
                self._config.replica_routing.max_prompt_bytes,
            )
        order = Order(
            model_id,
            path,
            encoded,
            asked.request_id,
            RoutedRequest(
                prompt,
                session_key(asked.caller.name, asked.session, prompt),
                len(encoded),
                is_streamed=bool(body.get("stream")),
            ),
            queued,
            tenant=asked.caller.name,
            deadline=deadline,
            key=asked.caller.id,
            adapter=candidate.served_name if candidate.served_name != model_id else "",
        )
        handed = await self._prefill.compute(order, body) if prefills else None
        # Who fetches a prompt need not have it, and computes none of it: any replica with little to do.
        return order if handed is None else replace(order, handed=handed, routed=UNKNOWN)
