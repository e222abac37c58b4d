"""Sends one request to a replica of its model: choose, send, ask another if that one is gone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import prometheus_client

from serving.admission.deadline import Deadline
from serving.admission.quarantine import Quarantine
from serving.discovery.directory import Directory, Replica
from serving.errors import AnswerTooLongError, EngineFailedError, EngineTimeoutError
from serving.gateway.bills import Bills
from serving.gateway.blame import judge
from serving.gateway.hedging import first_of
from serving.gateway.lanes import SUSPECT_S, Lane, Lanes
from serving.gateway.probation import Probation
from serving.gateway.replica_request import NoReplicaError, ReplicaRequest, RetryState
from serving.gateway.replica_response import ReplicaResponse, Traffic
from serving.gateway.upstream import Gone, LateError, ReplicaGoneError, Upstream
from serving.settings import GatewayConfig
from serving.telemetry.metrics import GatewayMetrics

# A request under which two engines died is taken for the cause, and is not given to a third.
MAX_DEATHS = 2
# So long a request waits under which an engine died: what kills several at once shows itself meanwhile, and
# is not taken for the request's doing.
DEATH_PAUSE_S = 0.5
# A request at which two engines failed that live is taken for the cause.
MAX_FAILURES = 2
_FAILED = "the engine failed on this request"


class _FailedError(Exception):
    """A live replica failed on the request; another one will show whose fault that is."""

    def __init__(self, replica_id: str, *, is_busy: bool) -> None:
        super().__init__(replica_id)
        self.replica_id = replica_id
        self.is_busy = is_busy


class Forwarder:
    """Sends requests to replicas, remembers failures, and retries within a budget."""

    def __init__(
        self,
        directory: Callable[[], Directory],
        upstream: Upstream,
        config: GatewayConfig | None = None,
        metrics: GatewayMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        choices: prometheus_client.Counter | None = None,
        bills: Bills | None = None,
        *,
        is_prefill: bool = False,
    ) -> None:
        """Args: choices: counts the reasons of choices, by default as `replica_choices`."""
        self._upstream = upstream
        self._config = config or GatewayConfig()
        self._metrics = metrics or GatewayMetrics()
        self._choices = choices or self._metrics.replica_choices
        self._bills = bills or Bills(self._metrics)
        self._clock = clock
        self._lanes = Lanes(directory, self._config, draw)
        self.breakers = self._lanes.breakers
        self._probation = Probation()
        self.quarantine = Quarantine(self._config.quarantine)
        self._traffic = Traffic(self._lanes, self._bills, clock, is_prefill=is_prefill)
        self.in_flight = self._traffic.in_flight

    @property
    def lanes(self) -> dict[str, Lane]:
        """The lanes of all models, by id."""
        return self._lanes.all

    async def open(
        self, request: ReplicaRequest, tried: RetryState | None = None
    ) -> ReplicaResponse:
        """Send to the best replica, then to others while none has begun to answer.

        The caller must `close` the response when it is done with the answer.

        Args:
            tried: the attempts before the request was held, which are continued.

        Raises:
            NoReplicaError: no replica can be asked just now; the request may be held and sent again.
            EngineFailedError: the request is the cause of failures, or no other replica is left to tell.
            EngineTimeoutError: the engine was silent for too long.
        """
        tried = tried if tried is not None else RetryState()
        lane, now = self._lanes.of(request.model_id), self._clock()
        if not tried.is_counted:
            tried.is_counted = True
            lane.budget.request(now, request.tenant)
        tried.begin(now)
        while True:
            candidates = self._lanes.candidates(request.model_id, tried, self._clock())
            if not candidates:
                if not tried.failed:
                    self._note_model(request.model_id, ok=False)
                break
            if not self._take_attempt(request, lane, tried):
                break
            try:
                if tried.deaths:
                    response = await self._ask_in_turn(request, lane, tried)
                else:
                    response = await self._ask(request, lane, candidates, tried)
            except ReplicaGoneError as gone:
                await self._note_gone(request, tried, gone)
            except _FailedError as failure:
                self._note_failure(request, tried, failure)
            except LateError:
                break
            else:
                for replica_id in tried.failed:
                    # The same request, and another one could do it.
                    self.breakers.replica(replica_id).doubt(request.tenant, self._clock())
                return response
        if tried.failed:
            raise EngineFailedError(_FAILED)
        tried.again_s = self._clock() + SUSPECT_S
        raise NoReplicaError

    def can_ask(self, model_id: str, tried: RetryState | None = None, tenant: str = "") -> bool:
        """Whether `open` would send a request with these attempts now."""
        lane, now = self._lanes.of(model_id), self._clock()
        if tried is not None and not tried.is_free and not lane.budget.can_retry(now, tenant):
            return False
        breakers = self.breakers.replicas
        for replica in lane.replicas:
            breaker = breakers.get(replica.id)
            is_allowed = breaker is None or breaker.allows(now)
            if is_allowed and (tried is None or tried.may_ask(replica, now)):
                return True
        return False

    def is_well(self, model_id: str) -> bool:
        """Whether the model should be asked before its fallbacks."""
        breaker = self.breakers.models.get(model_id)
        return breaker is None or breaker.allows(self._clock())

    def reads_prompts(self, model_id: str) -> bool:
        """Whether the policy needs hashes of prompts."""
        lane = self._lanes.of(model_id)
        return lane.policy.reads_prompt and len(lane.replicas) > 1

    # ---- one replica -------------------------------------------------------------------------------------

    async def _ask_in_turn(
        self, request: ReplicaRequest, lane: Lane, tried: RetryState
    ) -> ReplicaResponse:
        """Send a request under which an engine died alone: it may be the cause, and must not harm others."""
        async with self._probation.turn(request.model_id, request.tenant, tried.acquit):
            candidates = self._lanes.candidates(request.model_id, tried, self._clock())
            return await self._ask(request, lane, candidates, tried)

    async def _ask(
        self, request: ReplicaRequest, lane: Lane, candidates: Sequence[Replica], tried: RetryState
    ) -> ReplicaResponse:
        hedge_after_s = self._config.retries.hedge_after_s
        if hedge_after_s is None or len(candidates) < 2:
            return await self._send(request, lane, candidates, tried)
        return await first_of(
            lambda: self._send(
                request, lane, self._lanes.candidates(request.model_id, tried, self._clock()), tried
            ),
            hedge_after_s,
            ReplicaResponse.close,
            # The engines work for both: a hedge costs what a retry does.
            lambda: self._take_attempt(request, lane, tried, is_free=False),
        )

    async def _send(
        self, request: ReplicaRequest, lane: Lane, candidates: Sequence[Replica], tried: RetryState
    ) -> ReplicaResponse:
        if not candidates:
            raise ReplicaGoneError("nobody is left")
        if request.computed is not None and not tried.is_handed:
            # While a changed file is rolled out, some replicas are of another build.
            readers = [one for one in candidates if one.build == request.computed.build]
            candidates = readers or candidates
        choice = lane.policy.choose(request.routed, candidates, self.in_flight)
        replica = choice.replica
        tried.replicas.add(replica.id)
        self._choices.labels(request.model_id, choice.policy, choice.reason).inc()
        self.in_flight[replica.id] += 1
        breaker = self.breakers.replica(replica.id)
        attempt = breaker.begin(self._clock())
        try:
            answer = await self._upstream.post(
                replica,
                request.path,
                tried.body(request, replica),
                request.request_id,
                request.queued,
                self._bills.payer(request.key),
                _left_s(request.deadline, self._clock()),
            )
            beginning = judge(answer.status, answer.first)
            if beginning.verdict in ("failed", "busy", "dead"):
                # Nothing has reached the client.
                answer.close()
                if beginning.verdict == "dead":
                    raise ReplicaGoneError("its engine is dead", Gone.DIED)
                raise _FailedError(replica.id, is_busy=beginning.verdict == "busy")
        except ReplicaGoneError as gone:
            self._traffic.ended(replica)
            breaker.record(False, self._clock(), attempt)
            self._lanes.suspect(replica, self._clock())
            if gone.unreachable:
                tried.machines.add(replica.machine)
            raise
        except EngineTimeoutError as error:
            self._traffic.ended(replica)
            if self._lanes.has_stepped(request.model_id, replica):
                breaker.abandon(self._clock(), attempt)
                raise AnswerTooLongError(error.message) from None
            breaker.record(False, self._clock(), attempt)
            raise
        except BaseException:
            self._traffic.ended(replica)
            breaker.abandon(self._clock(), attempt)
            raise
        finally:
            lane.policy.began(choice)
        breaker.record(True, self._clock(), attempt)
        self._note_model(request.model_id, ok=True)
        return ReplicaResponse(request, answer, choice, self._traffic, beginning.refusal)

    # ---- one model ---------------------------------------------------------------------------------------

    def _take_attempt(
        self, request: ReplicaRequest, lane: Lane, tried: RetryState, *, is_free: bool | None = None
    ) -> bool:
        """Count one more attempt, if allowed: the first is free, others need budget and time."""
        now = self._clock()
        if tried.attempts >= self._config.retries.max_attempts:
            return False
        deadline = request.deadline
        is_named = deadline is not None and deadline.is_named
        if tried.replicas and deadline is not None and is_named and deadline.has_passed(now):
            return False
        if is_free is None:
            is_free = tried.is_free
        # A lost replica takes all its requests along at once, and does no more work for them. What comes
        # later passes it over: it is a suspect, its breaker opens.
        if not is_free and not lane.budget.try_retry(now, request.tenant):
            return False
        tried.attempts += 1
        if tried.replicas:
            self._metrics.retries.labels(request.model_id).inc()
        return True

    async def _note_gone(
        self, request: ReplicaRequest, tried: RetryState, gone: ReplicaGoneError
    ) -> None:
        tried.is_free = gone.lost
        if not gone.sent:
            return
        tried.deaths += 1
        tried.died += 1
        if tried.deaths >= MAX_DEATHS:
            self._hold_back(request)
        if self._lanes.candidates(request.model_id, tried, self._clock()):
            await asyncio.sleep(DEATH_PAUSE_S)

    def _note_failure(
        self, request: ReplicaRequest, tried: RetryState, failure: _FailedError
    ) -> None:
        tried.is_free = False
        tried.failed.append(failure.replica_id)
        if len(tried.failed) >= MAX_FAILURES:
            if failure.is_busy:
                raise EngineFailedError(_FAILED)
            self._hold_back(request)

    def _hold_back(self, request: ReplicaRequest) -> None:
        """Refuse a request that is the cause, and quarantine its like for a while."""
        self.quarantine.add(request.suspect, self._clock())
        raise EngineFailedError(_FAILED)

    def _note_model(self, model_id: str, *, ok: bool) -> None:
        if ok and model_id not in self.breakers.models:
            return
        breaker, now = self.breakers.model(model_id), self._clock()
        breaker.record(ok, now, breaker.begin(now))


def _left_s(deadline: Deadline | None, now: float) -> float | None:
    return deadline.left_s(now) if deadline is not None and deadline.is_named else None
