"""Makes an order for replicas out of a checked request: its body, its prompt's hashes, a computed prompt."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any

from serving.admission.deadline import Deadline
from serving.admission.quarantine import Suspect
from serving.discovery.directory import Model
from serving.gateway.admission import Estimate
from serving.gateway.body import discard_in_steps
from serving.gateway.checked_request import Asked, Benches
from serving.gateway.forwarding import Forwarder
from serving.gateway.prefill import Prefill
from serving.gateway.replica_request import UNKNOWN, Order
from serving.records import record
from serving.replicas.choice import RoutedRequest
from serving.replicas.prompt_prefix import (
    EMPTY,
    PromptPrefix,
    prompt_prefix,
    session_key,
    tenant_salt,
)
from serving.routing.route import Candidate
from serving.settings import GatewayConfig


@record
class Prepared:
    """A request as it goes to one candidate.

    `own`: the fields that the gateway writes into it. `estimate`: what it may cost; put right when the
    engine has counted.
    """

    asked: Asked
    candidate: Candidate
    own: dict[str, Any]
    encoded: bytes
    estimate: Estimate

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
        self.benches = Benches()

    async def prepare(self, asked: Asked, candidate: Candidate) -> Prepared:
        """The request as this candidate reads it."""
        own: dict[str, Any] = {"model": candidate.served_name}
        if asked.endpoint.path == "/v1/responses":
            own["store"] = False
        if asked.caller.cache_salt is not None:
            own["cache_salt"] = asked.caller.cache_salt
        encoded = await asked.text(own)
        if asked.turns is not None:
            # To write so much to a socket takes as long again.
            await asyncio.sleep(0)
        return Prepared(asked, candidate, own, encoded, Estimate(*asked.tokens(encoded)))

    async def order(
        self, prepared: Prepared, model: Model, queued: int, deadline: Deadline
    ) -> Order:
        """What goes to the forwarder, once a prefill replica has computed a prompt that is one for it."""
        asked, candidate = prepared.asked, prepared.candidate
        path, model_id, encoded = asked.endpoint.path, candidate.model_id, prepared.encoded
        may_prefill = model.prefill_min_tokens is not None
        reads_prompts = self._forwarder.reads_prompts(model_id)
        body: dict[str, Any] = asked.body
        prefills, prompt = False, EMPTY
        # It is looked into only where that decides something.
        if reads_prompts or may_prefill:
            async with self._place(asked):
                body = await asked.whole(prepared.own)
                prefills = self._prefill.wants(model, path, body, len(encoded))
                if reads_prompts or (prefills and self._prefill.forwarder.reads_prompts(model_id)):
                    prompt = await self._prefix(asked, candidate, body)
                if not prefills:
                    if asked.turns is not None:
                        # It was made for this alone, and takes as long to go as it took to come.
                        await asked.turns.run(discard_in_steps(body))
                    body = asked.body
        order = Order(
            model_id,
            path,
            encoded,
            asked.request_id,
            RoutedRequest(
                prompt,
                session_key(asked.caller.name, asked.session, prompt),
                len(encoded),
                is_streamed=bool(asked.body.get("stream")),
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

    def _place(self, asked: Asked) -> AbstractAsyncContextManager[None]:
        """A large body is worked on where its tenant's others are not at the same time."""
        return nullcontext() if asked.turns is None else self.benches.place(asked.caller.name)

    async def _prefix(
        self, asked: Asked, candidate: Candidate, body: dict[str, Any]
    ) -> PromptPrefix:
        if asked.turns is not None:
            # Hashing takes milliseconds then, and there was other work before it.
            await asyncio.sleep(0)
        return prompt_prefix(
            asked.endpoint.path,
            body,
            tenant_salt(asked.caller.cache_salt, candidate.served_name),
            self._config.replica_routing.block_bytes,
            self._config.replica_routing.max_prompt_bytes,
        )
