"""Has a prefill replica compute a long prompt before the request goes to an answering replica.

Nothing here fails a request: what no prefill replica has computed, the answering one computes itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from serving.config.admission import RetryConfig
from serving.discovery.directory import Directory, Model
from serving.errors import ComptoirError
from serving.gateway.bills import Bills
from serving.gateway.body import encode
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.forwarding import Forwarder
from serving.gateway.replica_request import ComputedPrompt, ReplicaRequest, RetryState
from serving.gateway.upstream import ReplicaBrokeError, Upstream
from serving.replicas import prefill_decode
from serving.settings import GatewayConfig
from serving.telemetry.metrics import GatewayMetrics


class Prefill:
    """The gateway's view of prefill replicas, with breakers, counts and cached beginnings of their own."""

    def __init__(
        self,
        directory: Callable[[], Directory],
        config: GatewayConfig,
        metrics: GatewayMetrics,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        bills: Bills | None = None,
    ) -> None:
        self._directory = directory
        self._seen: tuple[Directory, Directory] | None = None
        self._metrics = metrics
        self._clock = clock
        self.upstream = Upstream(
            connect_timeout_s=config.connect_timeout_s, response_timeout_s=config.prefill_timeout_s
        )
        # One try: the replica that answers is the next one.
        once = config.model_copy(update={"retries": RetryConfig(max_attempts=1)})
        self.forwarder = Forwarder(
            self._prefill_directory,
            self.upstream,
            once,
            metrics,
            clock,
            draw=draw,
            choices=metrics.prefill_choices,
            bills=bills,
            is_prefill=True,
        )

    def wants(
        self, model: Model, request: CheckedRequest, body: dict[str, object], encoded_bytes: int
    ) -> bool:
        """Whether this prompt is for a prefill replica; counts the reason otherwise."""
        least = model.prefill_min_tokens
        if least is None:
            return False
        outcome: prefill_decode.Outcome | None = None
        if not prefill_decode.fits(request.endpoint.path, body):
            outcome = "unfit"
        elif not prefill_decode.is_long(
            encoded_bytes, least, lambda: request.features.input_tokens
        ):
            outcome = "short"
        elif not model.prefill:
            outcome = "failed"
        if outcome is not None:
            self._metrics.prefills.labels(model.id, outcome).inc()
        return outcome is None

    async def compute(
        self, request: ReplicaRequest, body: dict[str, object]
    ) -> ComputedPrompt | None:
        """Have a prompt computed; return the request for the answering replica, or None if none computed it.

        Args:
            request: the client's request as it would go to that replica.
            body: the same, before it was encoded.
        """
        began_s, deadline = self._clock(), request.deadline
        named = deadline is not None and deadline.is_named
        computed = None
        with suppress(TimeoutError):
            # Nobody waits longer for a prompt than its client does for the answer.
            async with asyncio.timeout(deadline.left_s(began_s) if deadline and named else None):
                computed = await self._ask(request, body)
        outcome: prefill_decode.Outcome = "failed" if computed is None else "handed"
        self._metrics.prefills.labels(request.model_id, outcome).inc()
        self._metrics.prefill_time.labels(request.model_id).observe(self._clock() - began_s)
        return computed

    async def _ask(self, request: ReplicaRequest, body: dict[str, object]) -> ComputedPrompt | None:
        encoded = encode(prefill_decode.prefill_body(request.path, body))
        # Its one token comes when the prompt has been read, as a stream's first one does.
        routed = replace(request.routed, is_streamed=True)
        tried = RetryState()
        try:
            prefill_request = replace(request, body=encoded, queued=0, routed=routed)
            response = await self.forwarder.open(prefill_request, tried)
        except ComptoirError:
            # There is no second one whose answer would tell; the model's own replicas go on either way.
            for replica_id in tried.failed:
                self.forwarder.breakers.replica(replica_id).doubt(request.tenant, self._clock())
            return None
        with response:
            try:
                answer = await response.answer.rest()
            except ReplicaBrokeError:
                response.broke()
                return None
        told = prefill_decode.decode_body(body, answer) if response.answer.status == 200 else None
        return None if told is None else ComputedPrompt(encode(told), response.replica.build)

    def _prefill_directory(self) -> Directory:
        """The directory with prefill replicas in the place of the models' own."""
        current = self._directory()
        if self._seen is None or self._seen[0] is not current:
            models = current.models.values()
            turned = Directory(
                replace(one, replicas=one.prefill, wanted=one.prefill_wanted)
                for one in models
                if one.prefill_min_tokens is not None
            )
            self._seen = (current, turned)
        return self._seen[1]
