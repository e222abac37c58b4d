"""Builds a replica's request from a checked request: body, hashes of its prompt, a computed prompt."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any

from serving.admission.deadline import Deadline
from serving.admission.quarantine import Suspect
from serving.api import ENDPOINTS, RESPONSES
from serving.discovery.directory import Model
from serving.gateway.admission import Estimate
from serving.gateway.body import discard_in_steps
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.forwarding import Forwarder
from serving.gateway.prefill import Prefill
from serving.gateway.replica_request import UNKNOWN, ReplicaRequest
from serving.gateway.tenant_semaphores import TenantSemaphores
from serving.records import record
from serving.replica_facts import ModelCard
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
from serving.trust.fitting import fit


@record
class CandidateRequest:
    """A request as it goes to one candidate.

    `own`: the fields that the gateway writes into it. `estimate`: what it may cost; put right when the
    engine has counted.
    """

    request: CheckedRequest
    candidate: Candidate
    own: dict[str, Any]
    encoded: bytes
    estimate: Estimate

    @property
    def suspect(self) -> Suspect:
        """The request as the quarantine knows it."""
        path, model_id = self.request.endpoint.path, self.candidate.model_id
        return Suspect(self.request.caller.name, model_id, path, self.encoded)


class RequestBuilder:
    """Builds the request for one candidate, and then for a replica of it, from a checked request."""

    def __init__(self, config: GatewayConfig, forwarder: Forwarder, prefill: Prefill) -> None:
        self._config = config
        self._forwarder = forwarder
        self._prefill = prefill
        self.semaphores = TenantSemaphores()

    async def prepare(
        self, request: CheckedRequest, candidate: Candidate, card: ModelCard
    ) -> CandidateRequest:
        """The request as this candidate reads it."""
        own: dict[str, Any] = {"model": candidate.served_name}
        if limits := ENDPOINTS[request.endpoint.path].output_limits:
            found = fit(request.body, limits, card.max_model_len, card.capabilities)
            own |= found.instead
            if found.dropped:
                request.dropped = tuple(dict.fromkeys((*request.dropped, *found.dropped)))
        if request.endpoint.path == RESPONSES:
            own["store"] = False
        if request.caller.cache_salt is not None:
            own["cache_salt"] = request.caller.cache_salt
        encoded = await request.text(own)
        if request.turns is not None:
            # To write so much to a socket takes as long again.
            await asyncio.sleep(0)
        return CandidateRequest(
            request, candidate, own, encoded, Estimate(*request.tokens(encoded))
        )

    async def build(
        self, prepared: CandidateRequest, model: Model, queued: int, deadline: Deadline
    ) -> ReplicaRequest:
        """The forwarder's request, after a prefill replica has computed the prompt where that is worth it."""
        request, candidate = prepared.request, prepared.candidate
        path, model_id, encoded = request.endpoint.path, candidate.model_id, prepared.encoded
        may_prefill = model.prefill_min_tokens is not None
        reads_prompts = self._forwarder.reads_prompts(model_id)
        body: dict[str, Any] = request.body
        prefills, prompt = False, EMPTY
        # It is looked into only where that decides something.
        if reads_prompts or may_prefill:
            async with self._place(request):
                body = await request.whole(prepared.own)
                prefills = self._prefill.wants(model, request, body, len(encoded))
                if reads_prompts or (prefills and self._prefill.forwarder.reads_prompts(model_id)):
                    prompt = await self._prefix(request, candidate, body)
                if not prefills:
                    if request.turns is not None:
                        # It was made for this alone, and takes as long to go as it took to come.
                        await request.turns.run(discard_in_steps(body))
                    body = request.body
        built = ReplicaRequest(
            model_id,
            path,
            encoded,
            request.request_id,
            RoutedRequest(
                prompt,
                session_key(request.caller.name, request.session, prompt),
                len(encoded),
                is_streamed=bool(request.body.get("stream")),
            ),
            queued,
            tenant=request.caller.name,
            deadline=deadline,
            key=request.caller.id,
            adapter=candidate.served_name if candidate.served_name != model_id else "",
        )
        computed = await self._prefill.compute(built, body) if prefills else None
        # Who fetches a prompt need not have it, and computes none of it: any replica with little to do.
        return built if computed is None else replace(built, computed=computed, routed=UNKNOWN)

    def _place(self, request: CheckedRequest) -> AbstractAsyncContextManager[None]:
        """A large body is worked on where its tenant's others are not at the same time."""
        return nullcontext() if request.turns is None else self.semaphores.hold(request.caller.name)

    async def _prefix(
        self, request: CheckedRequest, candidate: Candidate, body: dict[str, Any]
    ) -> PromptPrefix:
        if request.turns is not None:
            # Hashing takes milliseconds then, and there was other work before it.
            await asyncio.sleep(0)
        return prompt_prefix(
            request.endpoint.path,
            body,
            tenant_salt(request.caller.cache_salt, candidate.served_name),
            self._config.replica_routing.block_bytes,
            self._config.replica_routing.max_prompt_bytes,
        )
