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
from serving.gateway.admission import Admission, BusyError, OnWait, Slot
from serving.gateway.bills import Bills
from serving.gateway.checked_request import Asked, Benches
from serving.gateway.engine_errors import from_engine
from serving.gateway.forwarding import Forwarder
from serving.gateway.holding import Holding
from serving.gateway.prefill import Prefill
from serving.gateway.replica_request import NobodyError, Sent, Tried
from serving.gateway.request_builder import Preparation, Prepared
from serving.gateway.upstream import Answer, ReplicaBrokeError
from serving.observability.metrics import GatewayMetrics
from serving.routing.aliases import sticky_key
from serving.routing.lifetimes import deprecation_headers
from serving.routing.route import Candidate, Route
from serving.routing.router import ModelRouter, failure_of
from serving.settings import GatewayConfig
from serving.tenancy.keys import Caller

# The objects of a smaller body may stay while it is answered.
SMALL_BODY_BYTES = 1024


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


@dataclass(slots=True)
class _Trip:
    """One request on its way along its route, however often it is held.

    Attributes:
        deadline: until when it may wait.
        tried: what was tried, by model.
        absent: the models of this round that could be asked once somebody answers for them.
        unwell: those of this round that are asked last.
        renewals: after how many deaths of engines the deadline has begun anew.
    """

    asked: Asked
    route: Route
    deadline: Deadline
    on_wait: OnWait | None
    tried: defaultdict[str, Tried] = field(default_factory=lambda: defaultdict(Tried))
    absent: dict[str, Tried] = field(default_factory=dict)
    unwell: list[Candidate] = field(default_factory=list)
    renewals: int = 0

    def next_unwell(self) -> Candidate | None:
        """One that was passed over for better ones, when these could not either."""
        return self.unwell.pop(0) if self.unwell else None

    @property
    def tenant(self) -> str:
        """Who asks."""
        return self.asked.caller.name


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
        self._preparation = Preparation(config, forwarder, prefill)
        self._admission = admission
        self._holding = holding
        self._metrics = metrics
        self._bills = bills
        self._today = today
        self._clock = clock

    @property
    def benches(self) -> Benches:
        """Where large bodies are worked on."""
        return self._preparation.benches

    def reroute(self, routing: RoutingConfig) -> None:
        """Route by this from the next request on; what is under way keeps its route."""
        self.routing = routing
        self._router = ModelRouter(routing)

    async def open(self, asked: Asked, on_wait: OnWait | None = None) -> Opened:
        """The first answer that has begun; `close` it in the end.

        Args:
            on_wait: called now and then while the request waits for a model.

        Raises:
            ComptoirError: nobody may, can or will answer; what the last candidate failed with.
        """
        try:
            return await self._open(asked, on_wait)
        except ComptoirError as error:
            self._metrics.tenant(asked.caller.name)[outcome_of(error)].inc()
            raise

    async def _open(self, asked: Asked, on_wait: OnWait | None) -> Opened:
        deadline = asked.deadline or self._default_deadline()
        trip = _Trip(asked, self._route(asked), deadline, on_wait)
        while (opened := await self._along(trip)) is None:
            await asked.pack()
            try:
                await self._holding.until(trip.absent, trip.tenant, trip.deadline, on_wait)
            except ComptoirError as failure:
                self._note_outcome(next(iter(trip.absent)), failure)
                raise
        return opened

    async def _along(self, trip: _Trip) -> Opened | None:
        """Ask the candidates in order; None when nobody answers now for any that could be asked."""
        route = trip.route
        # Not `dict[str, Failure]()`, which takes as long as all of the loop.
        failed: dict[str, Failure] = {}
        has_others = len(route.candidates) > 1
        trip.absent, trip.unwell = {}, []
        while (candidate := route.next(failed) or trip.next_unwell()) is not None:
            name, model_id = candidate.served_name, candidate.model_id
            stand_in = route.next(failed | {name: "unhealthy"}) if has_others else None
            if not self._can_ask(trip, candidate):
                # Whoever stands in, it is woken if it sleeps.
                self._holding.wake(model_id)
                self._set_aside(trip, candidate, failed)
                continue
            is_better = stand_in is not None and not self._forwarder.is_well(model_id)
            if stand_in is not None and is_better and self._can_ask(trip, stand_in):
                trip.unwell.append(candidate)
                failed[name] = "unhealthy"
                continue
            self._metrics.model_choices.labels(model_id, candidate.reason).inc()
            try:
                return await self._ask(trip, candidate)
            except NobodyError:
                self._renew(trip)
                self._set_aside(trip, candidate, failed)
            except ComptoirError as failure:
                if not self._may_go_on(trip, candidate, failure, failed):
                    self._note_outcome(model_id, failure)
                    raise
        return None

    def _can_ask(self, trip: _Trip, candidate: Candidate) -> bool:
        tried = trip.tried.get(candidate.model_id)
        return self._forwarder.can_ask(candidate.model_id, tried, trip.tenant)

    def _set_aside(self, trip: _Trip, candidate: Candidate, failed: dict[str, Failure]) -> None:
        """Nobody answers for this candidate now: others may, or the request is held."""
        trip.absent[candidate.model_id] = trip.tried[candidate.model_id]
        failed[candidate.served_name] = "unhealthy"
        if trip.route.next(failed) is not None:
            self._metrics.failovers.labels(candidate.model_id, "unhealthy").inc()

    def _may_go_on(
        self,
        trip: _Trip,
        candidate: Candidate,
        failure: ComptoirError,
        failed: dict[str, Failure],
    ) -> bool:
        """Whether somebody else may answer after this failure, at once or when a model is there again."""
        kind = failure.failure if isinstance(failure, BusyError) else failure_of(failure)
        if kind is None or (trip.deadline.is_named and trip.deadline.has_passed(self._clock())):
            return False
        failed[candidate.served_name] = kind
        if trip.route.next(failed) is None:
            return bool(trip.absent or trip.unwell)
        self._metrics.failovers.labels(candidate.model_id, kind).inc()
        return True

    def _renew(self, trip: _Trip) -> None:
        """An engine was at work on it and died, which is no waiting: a deadline of the site begins anew."""
        died = sum(tried.died for tried in trip.tried.values())
        if died > trip.renewals and not trip.deadline.is_named:
            trip.renewals = died
            trip.deadline = self._default_deadline()

    def _default_deadline(self) -> Deadline:
        return Deadline(self._clock() + self._config.admission.max_wait_s)

    def _note_outcome(self, model_id: str, failure: ComptoirError) -> None:
        self._metrics.outcomes.labels(model_id, outcome_of(failure)).inc()

    def close(self, opened: Opened) -> None:
        """Done with the answer. If it is not complete, the engine aborts its request."""
        opened.slot.usage = opened.answer.usage
        self._forwarder.finished(opened.sent)
        self._release(opened.slot, opened.sent.order.request_id)
        metrics, model = self._metrics, opened.candidate.model_id
        tenant = metrics.tenant(opened.tenant)
        outcome = "broken" if opened.is_broken else "ok"
        metrics.outcomes.labels(model, outcome).inc()
        tenant[outcome].inc()

    def _release(self, slot: Slot, request_id: str) -> None:
        """The next request gets the slot; what this one cost is known, or will be."""
        slot.release()
        if slot.usage is None:
            self._bills.owed(request_id, slot)

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
            features = asked.features
        return self._router.route(
            name,
            features,
            self._directory(),
            asked.caller.may_use,
            sticky_key(asked.caller.name, asked.session, asked.user),
            self._today(),
            asked.endpoint.tasks,
        )

    async def _ask(self, trip: _Trip, candidate: Candidate) -> Opened:
        asked, model_id = trip.asked, candidate.model_id
        model = self._directory().models.get(model_id)
        if model is None:
            raise NobodyError
        prepared = await self._preparation.prepare(asked, candidate)
        self._check_quarantine(prepared)
        if self._admission.is_busy(model_id):
            await asked.pack()
        slot = await self._admission.acquire(
            model, asked.caller, prepared.estimate, trip.deadline, trip.on_wait
        )
        if slot.waited_s:
            waits = self._metrics.queue_wait.labels(model_id, asked.caller.priority)
            waits.observe(slot.waited_s)
        try:
            queued = self._admission.queued(model_id)
            order = await self._preparation.order(prepared, model, queued, trip.deadline)
            if len(order.body) > SMALL_BODY_BYTES:
                # Its answer may be long in coming.
                await asked.pack()
            if trip.deadline.is_named and trip.deadline.has_passed(self._clock()):
                raise BusyError("expired", self._config.admission.max_retry_after_s)
            sent = await self._forwarder.open(order, trip.tried[model_id])
            opened = Opened(sent, slot, candidate, trip.route, trip.tenant)
            if sent.refusal is not None or sent.answer.status >= 400:
                await self._refuse(asked, opened)
        except NobodyError:
            slot.give_back()
            raise
        except BaseException:
            self._release(slot, asked.request_id)
            raise
        return opened

    def _check_quarantine(self, prepared: Prepared) -> None:
        """Raise what a request gets that engines failed at a moment ago: it is not sent to more of them."""
        quarantine = self._forwarder.quarantine
        if quarantine.is_empty:
            return
        if left_s := quarantine.left_s(prepared.suspect, self._clock()):
            raise EngineFailedError(
                "several engines have just failed on this very request: it is not sent again for a while; "
                "change it, or come back later",
                retry_after_s=left_s,
            )

    async def _refuse(self, asked: Asked, opened: Opened) -> None:
        """Raise what an engine's error answer means."""
        refusal = opened.sent.refusal
        try:
            if refusal is not None:
                raise from_engine(refusal.status, refusal.body, asked.names)
            raise from_engine(opened.answer.status, await opened.answer.rest(), asked.names)
        except ReplicaBrokeError:
            raise from_engine(502, b"") from None
        finally:
            opened.slot.usage = opened.answer.usage
            self._forwarder.finished(opened.sent)


def outcome_of(error: ComptoirError) -> str:
    """How a request that failed counts: see `OUTCOMES`."""
    if error.status >= 500:
        return "failed"
    return "busy" if isinstance(error, BusyError) else "refused"
