"""Takes a checked request along its route: the first model that answers, before its first byte, gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

from serving.config.routing import Failure, RoutingConfig
from serving.errors import ComptoirError, ModelUnavailableError
from serving.gateway.admission import Admission, BusyError, Estimate, OnWait, Slot
from serving.gateway.body import encode
from serving.gateway.engine_errors import from_engine
from serving.gateway.forwarding import UNKNOWN, Forwarder, Order, Sent
from serving.gateway.prefill import Prefill
from serving.gateway.upstream import Answer, ReplicaBrokeError
from serving.gateway.waking import Waking
from serving.observability.metrics import GatewayMetrics
from serving.routing.choice import RoutedRequest
from serving.routing.directory import Directory, Model
from serving.routing.estimate import tokens_of
from serving.routing.features import features_of
from serving.routing.models import (
    ModelRouter,
    Route,
    deprecation_headers,
    failure_of,
    sticky_key,
)
from serving.routing.prompt_prefix import EMPTY, prompt_prefix, session_key, tenant_salt
from serving.routing.rules import Candidate
from serving.settings import GatewayConfig
from serving.tenancy.keys import Caller
from serving.trust.fields import Endpoint


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has been checked: who asks what of which endpoint.

    `body` holds what may be sent to an engine; `session` and `user` are the client's own words for whom it
    speaks for, and go no further than into a hash.
    """

    endpoint: Endpoint
    caller: Caller
    body: dict[str, Any]
    request_id: str
    session: str | None = None
    user: str | None = None
    deadline_s: float | None = None


@dataclass(slots=True)
class Opened:
    """An answer that has begun, and how it came about. Give it to `close` in the end."""

    sent: Sent
    slot: Slot
    candidate: Candidate
    route: Route
    tenant: str
    is_broken: bool = False

    @property
    def answer(self) -> Answer:
        """What the replica says."""
        return self.sent.answer

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told: which model answers, whether as a stand-in, and what is deprecated."""
        headers = {"x-comptoir-model": self.candidate.served_name}
        if self.candidate.reason != "named":
            headers["x-comptoir-route"] = self.candidate.reason
        return headers | deprecation_headers(self.route)


def _today() -> date:
    return datetime.now(UTC).date()


class Dispatcher:
    """Routes by name, then asks candidates in order until one has begun to answer."""

    def __init__(
        self,
        config: GatewayConfig,
        directory: Callable[[], Directory],
        forwarder: Forwarder,
        prefill: Prefill,
        admission: Admission,
        waking: Waking,
        metrics: GatewayMetrics,
        today: Callable[[], date] = _today,
    ) -> None:
        self._config = config
        self.reroute(config.routing)
        self._directory = directory
        self._forwarder = forwarder
        self._prefill = prefill
        self._admission = admission
        self._waking = waking
        self._metrics = metrics
        self._today = today

    def reroute(self, routing: RoutingConfig) -> None:
        """Route by this from the next request on; what is under way keeps its route."""
        self.routing = routing
        self._router = ModelRouter(routing)

    async def open(self, asked: Asked, on_wait: OnWait | None = None) -> Opened:
        """The first answer that has begun; `close` it in the end.

        Args:
            on_wait: called now and then while the request waits for a busy model.

        Raises:
            ComptoirError: nobody may, can or will answer; what the last candidate failed with.
        """
        try:
            return await self._open(asked, on_wait)
        except ComptoirError as error:
            self._metrics.tenant(asked.caller.name)[outcome_of(error)].inc()
            raise

    async def _open(self, asked: Asked, on_wait: OnWait | None) -> Opened:
        route = self._route(asked)
        failed: dict[str, Failure] = {}
        while (candidate := route.next(failed)) is not None:
            name = candidate.served_name
            stand_in = route.next(failed | {name: "unhealthy"})
            if stand_in is not None and not self._forwarder.is_well(candidate.model_id):
                failed[name] = "unhealthy"
                continue
            self._metrics.model_choices.labels(candidate.model_id, candidate.reason).inc()
            try:
                return await self._ask(asked, candidate, route, on_wait)
            except ComptoirError as failure:
                kind = failure.failure if isinstance(failure, BusyError) else failure_of(failure)
                if kind is not None:
                    failed[name] = kind
                    if route.next(failed) is not None:
                        self._metrics.failovers.labels(candidate.model_id, kind).inc()
                        continue
                self._metrics.outcomes.labels(candidate.model_id, outcome_of(failure)).inc()
                raise
        raise RuntimeError("a route has a first candidate, and its last one is always asked")

    def close(self, opened: Opened) -> None:
        """Done with the answer. If it is not complete, the engine aborts its request."""
        usage = opened.slot.usage = opened.answer.usage
        self._forwarder.finished(opened.sent)
        opened.slot.release()
        metrics, model = self._metrics, opened.candidate.model_id
        tenant = metrics.tenant(opened.tenant)
        outcome = "broken" if opened.is_broken else "ok"
        metrics.outcomes.labels(model, outcome).inc()
        tenant[outcome].inc()
        if usage is None:
            return
        for kind, tokens in (
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.output_tokens),
        ):
            metrics.tokens.labels(model, kind).inc(tokens)
            tenant[kind].inc(tokens)

    def broke(self, opened: Opened) -> None:
        """The answer stopped before its end."""
        opened.is_broken = True
        self._metrics.broken_streams.labels(opened.candidate.model_id).inc()
        self._forwarder.broke(opened.sent)

    def names(self, caller: Caller) -> tuple[str, ...]:
        """The names that routing gives to models, as far as the caller may use one behind them."""
        return self._router.names(self._directory(), caller.may_use, self._today())

    def _route(self, asked: Asked) -> Route:
        name = asked.body["model"]
        features = None
        if self._router.needs_features(name):
            features = features_of(asked.endpoint.path, asked.body)
        return self._router.route(
            name,
            features,
            self._directory(),
            asked.caller.may_use,
            sticky_key(asked.caller.name, asked.session, asked.user),
            self._today(),
            asked.endpoint.tasks,
        )

    async def _ask(
        self, asked: Asked, candidate: Candidate, route: Route, on_wait: OnWait | None
    ) -> Opened:
        model = self._directory().models.get(candidate.model_id)
        if model is None:
            raise ModelUnavailableError("the model has just gone", param="model", retry_after_s=5.0)
        model = await self._waking.awake(model, asked.deadline_s, on_wait)
        body = self._body(asked, candidate)
        encoded = encode(body)
        estimate = Estimate(*tokens_of(asked.endpoint.path, body, len(encoded)))
        slot = await self._admission.acquire(
            model, asked.caller, estimate, asked.deadline_s, on_wait
        )
        if slot.waited_s:
            waits = self._metrics.queue_wait.labels(candidate.model_id, asked.caller.priority)
            waits.observe(slot.waited_s)
        try:
            order = await self._order(asked, candidate, model, body, encoded)
            sent = await self._forwarder.open(order)
            opened = Opened(sent, slot, candidate, route, asked.caller.name)
            if sent.answer.status >= 400:
                await self._refuse(asked, opened)
        except BaseException:
            slot.release()
            raise
        return opened

    def _body(self, asked: Asked, candidate: Candidate) -> dict[str, Any]:
        body = asked.body | {"model": candidate.served_name}
        if asked.endpoint.path == "/v1/responses":
            body["store"] = False
        if asked.caller.cache_salt is not None:
            body["cache_salt"] = asked.caller.cache_salt
        return body

    async def _order(
        self,
        asked: Asked,
        candidate: Candidate,
        model: Model,
        body: dict[str, Any],
        encoded: bytes,
    ) -> Order:
        """What goes to the forwarder, once a prefill replica has computed a prompt that is one for it."""
        path, model_id = asked.endpoint.path, candidate.model_id
        prefills = self._prefill.wants(model, path, body, len(encoded))
        prompt = EMPTY
        # It is hashed only where that decides something.
        if self._forwarder.reads_prompts(model_id) or (
            prefills and self._prefill.forwarder.reads_prompts(model_id)
        ):
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
            self._admission.queued(model_id),
        )
        handed = await self._prefill.compute(order, body) if prefills else None
        # Who fetches a prompt need not have it, and computes none of it: any replica with little to do.
        return order if handed is None else replace(order, handed=handed, routed=UNKNOWN)

    async def _refuse(self, asked: Asked, opened: Opened) -> None:
        """Raise what an engine's error answer means."""
        try:
            raise from_engine(opened.answer.status, await opened.answer.rest(), asked.body.keys())
        except ReplicaBrokeError:
            raise from_engine(502, b"") from None
        finally:
            self._forwarder.finished(opened.sent)


def outcome_of(error: ComptoirError) -> str:
    """How a request that failed counts: see `OUTCOMES`."""
    if error.status >= 500:
        return "failed"
    return "busy" if isinstance(error, BusyError) else "refused"
