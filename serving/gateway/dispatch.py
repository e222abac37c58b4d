"""Takes a checked request along its route: the first model that answers, before its first byte, gets it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from serving.admission.deadline import Deadline
from serving.config.routing import Failure, RoutingConfig
from serving.discovery.directory import Directory
from serving.errors import ComptoirError, EngineFailedError
from serving.gateway.admission import Admission
from serving.gateway.bills import Bills
from serving.gateway.busy import BusyError
from serving.gateway.checked_request import CheckedRequest
from serving.gateway.engine_errors import from_engine
from serving.gateway.forwarding import Forwarder
from serving.gateway.holding import Holding
from serving.gateway.model_queue import OnWait, Slot
from serving.gateway.open_response import OpenResponse
from serving.gateway.prefill import Prefill
from serving.gateway.replica_request import NoReplicaError, RetryState
from serving.gateway.replica_response import ReplicaResponse
from serving.gateway.request_builder import CandidateRequest, RequestBuilder
from serving.gateway.tenant_semaphores import TenantSemaphores
from serving.gateway.upstream import ReplicaBrokeError
from serving.routing.aliases import sticky_key
from serving.routing.route import Candidate, Route
from serving.routing.router import ModelRouter, failure_of
from serving.settings import GatewayConfig
from serving.telemetry.metrics import GatewayMetrics
from serving.tenancy.keys import Caller

# The objects of a smaller body may stay while it is answered.
SMALL_BODY_BYTES = 1024


@dataclass(slots=True)
class _DispatchState:
    """One request on its way along its route, however often it is held.

    Attributes:
        deadline: until when it may wait.
        tried: the attempts, by model.
        absent: models of this round that can be asked once a replica answers for them.
        unwell: unhealthy models of this round, which are asked last.
        renewals: how often the deadline has begun again after an engine's death.
    """

    request: CheckedRequest
    route: Route
    deadline: Deadline
    on_wait: OnWait | None
    tried: defaultdict[str, RetryState] = field(default_factory=lambda: defaultdict(RetryState))
    absent: dict[str, RetryState] = field(default_factory=dict)
    unwell: list[Candidate] = field(default_factory=list)
    renewals: int = 0

    def next_unwell(self) -> Candidate | None:
        """The next model that was skipped as unhealthy, when the healthy ones could not answer."""
        return self.unwell.pop(0) if self.unwell else None

    @property
    def tenant(self) -> str:
        """Who asks."""
        return self.request.caller.name


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
        holding: Holding,
        metrics: GatewayMetrics,
        bills: Bills,
        today: Callable[[], date] = _today,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self.reroute(config.routing)
        self._directory = directory
        self._forwarder = forwarder
        self._builder = RequestBuilder(config, forwarder, prefill)
        self._admission = admission
        self._holding = holding
        self._metrics = metrics
        self._bills = bills
        self._today = today
        self._clock = clock

    @property
    def semaphores(self) -> TenantSemaphores:
        """The semaphores for work on large bodies."""
        return self._builder.semaphores

    def reroute(self, routing: RoutingConfig) -> None:
        """Use this routing from the next request on; open requests keep their route."""
        self.routing = routing
        self._router = ModelRouter(routing)

    async def open(self, request: CheckedRequest, on_wait: OnWait | None = None) -> OpenResponse:
        """The first answer that has begun; use it as a context manager.

        Args:
            on_wait: called now and then while the request waits for a model.

        Raises:
            ComptoirError: no model may or can answer; the error of the last candidate.
        """
        try:
            return await self._open(request, on_wait)
        except ComptoirError as error:
            self._metrics.tenant(request.caller.name)[outcome_of(error)].inc()
            raise

    async def _open(self, request: CheckedRequest, on_wait: OnWait | None) -> OpenResponse:
        deadline = request.deadline or self._default_deadline()
        state = _DispatchState(request, self._route(request), deadline, on_wait)
        while (response := await self._along(state)) is None:
            await request.pack()
            try:
                await self._holding.until(state.absent, state.tenant, state.deadline, on_wait)
            except ComptoirError as failure:
                self._note_outcome(next(iter(state.absent)), failure)
                raise
        return response

    async def _along(self, state: _DispatchState) -> OpenResponse | None:
        """Ask the candidates in order; None when no replica of them can be asked now."""
        route = state.route
        # Not `dict[str, Failure]()`, which takes as long as all of the loop.
        failed: dict[str, Failure] = {}
        has_others = len(route.candidates) > 1
        state.absent, state.unwell = {}, []
        while (candidate := route.next(failed) or state.next_unwell()) is not None:
            name, model_id = candidate.served_name, candidate.model_id
            stand_in = route.next(failed | {name: "unhealthy"}) if has_others else None
            if not self._can_ask(state, candidate):
                # Whoever stands in, it is woken if it sleeps.
                self._holding.wake(model_id)
                self._set_aside(state, candidate, failed)
                continue
            is_better = stand_in is not None and not self._forwarder.is_well(model_id)
            if stand_in is not None and is_better and self._can_ask(state, stand_in):
                state.unwell.append(candidate)
                failed[name] = "unhealthy"
                continue
            self._metrics.model_choices.labels(model_id, candidate.reason).inc()
            try:
                return await self._ask(state, candidate)
            except NoReplicaError:
                self._renew(state)
                self._set_aside(state, candidate, failed)
            except ComptoirError as failure:
                if not self._may_go_on(state, candidate, failure, failed):
                    self._note_outcome(model_id, failure)
                    raise
        return None

    def _can_ask(self, state: _DispatchState, candidate: Candidate) -> bool:
        tried = state.tried.get(candidate.model_id)
        return self._forwarder.can_ask(candidate.model_id, tried, state.tenant)

    def _set_aside(
        self, state: _DispatchState, candidate: Candidate, failed: dict[str, Failure]
    ) -> None:
        """Set aside a candidate without a usable replica: others may answer, or the request is held."""
        state.absent[candidate.model_id] = state.tried[candidate.model_id]
        failed[candidate.served_name] = "unhealthy"
        if state.route.next(failed) is not None:
            self._metrics.failovers.labels(candidate.model_id, "unhealthy").inc()

    def _may_go_on(
        self,
        state: _DispatchState,
        candidate: Candidate,
        failure: ComptoirError,
        failed: dict[str, Failure],
    ) -> bool:
        """Whether another model may answer after this failure, at once or when it is back."""
        kind = failure.failure if isinstance(failure, BusyError) else failure_of(failure)
        if kind is None or (state.deadline.is_named and state.deadline.has_passed(self._clock())):
            return False
        failed[candidate.served_name] = kind
        if state.route.next(failed) is None:
            return bool(state.absent or state.unwell)
        self._metrics.failovers.labels(candidate.model_id, kind).inc()
        return True

    def _renew(self, state: _DispatchState) -> None:
        """Begin the site's own deadline again: an engine was at work on the request and died."""
        died = sum(tried.died for tried in state.tried.values())
        if died > state.renewals and not state.deadline.is_named:
            state.renewals = died
            state.deadline = self._default_deadline()

    def _default_deadline(self) -> Deadline:
        return Deadline(self._clock() + self._config.admission.max_wait_s)

    def _note_outcome(self, model_id: str, failure: ComptoirError) -> None:
        self._metrics.outcomes.labels(model_id, outcome_of(failure)).inc()

    def names(self, caller: Caller) -> tuple[str, ...]:
        """The names that routing gives to models, as far as the caller may use one behind them."""
        return self._router.names(self._directory(), caller.may_use, self._today())

    def _route(self, request: CheckedRequest) -> Route:
        name = request.body["model"]
        features = None
        if self._router.needs_features(name):
            features = request.features
        return self._router.route(
            name,
            features,
            self._directory(),
            request.caller.may_use,
            sticky_key(request.caller.name, request.session, request.user),
            self._today(),
            request.endpoint.tasks,
        )

    async def _ask(self, state: _DispatchState, candidate: Candidate) -> OpenResponse:
        request, model_id = state.request, candidate.model_id
        model = self._directory().models.get(model_id)
        if model is None:
            raise NoReplicaError
        prepared = await self._builder.prepare(request, candidate, model.card)
        self._check_quarantine(prepared)
        if self._admission.is_busy(model_id):
            await request.pack()
        slot = await self._admission.acquire(
            model, request.caller, prepared.estimate, state.deadline, state.on_wait
        )
        if slot.waited_s:
            waits = self._metrics.queue_wait.labels(model_id, request.caller.priority)
            waits.observe(slot.waited_s)
        try:
            queued = self._admission.queued(model_id)
            built = await self._builder.build(prepared, model, queued, state.deadline)
            if len(built.body) > SMALL_BODY_BYTES:
                # Its answer may be long in coming.
                await request.pack()
            if state.deadline.is_named and state.deadline.has_passed(self._clock()):
                raise BusyError("expired", self._config.admission.max_retry_after_s)
            replica_response = await self._forwarder.open(built, state.tried[model_id])
            if replica_response.refusal is not None or replica_response.answer.status >= 400:
                await self._refuse(request, replica_response, slot)
        except NoReplicaError:
            slot.give_back()
            raise
        except BaseException:
            self._bills.release(slot, request.request_id)
            raise
        return OpenResponse(
            replica_response,
            slot,
            candidate,
            state.route,
            state.tenant,
            self._metrics,
            self._bills,
        )

    def _check_quarantine(self, prepared: CandidateRequest) -> None:
        """Raise the error for a request at which engines have just failed: no more of them get it."""
        quarantine = self._forwarder.quarantine
        if quarantine.is_empty:
            return
        if left_s := quarantine.left_s(prepared.suspect, self._clock()):
            raise EngineFailedError(
                "several engines have just failed on this request: it is not sent again for a while; "
                "change it, or try again later",
                retry_after_s=left_s,
            )

    async def _refuse(self, request: CheckedRequest, response: ReplicaResponse, slot: Slot) -> None:
        """Raise our error for an engine's error answer."""
        refusal, answer = response.refusal, response.answer
        try:
            with response:
                if refusal is not None:
                    raise from_engine(refusal.status, refusal.body, request.names)
                raise from_engine(answer.status, await answer.rest(), request.names)
        except ReplicaBrokeError:
            raise from_engine(502, b"") from None
        finally:
            slot.usage = answer.usage


def outcome_of(error: ComptoirError) -> str:
    """How a request that failed counts: see `OUTCOMES`."""
    if error.status >= 500:
        return "failed"
    return "busy" if isinstance(error, BusyError) else "refused"
