"""Takes one request to a replica of its model: choose, send, ask another if that one is gone."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import prometheus_client

from serving.errors import (
    ComptoirError,
    EngineFailedError,
    EngineTimeoutError,
    ModelUnavailableError,
)
from serving.gateway.engine_errors import ENGINE_DEAD, stream_error_at
from serving.gateway.hedging import first_of
from serving.gateway.upstream import Answer, ReplicaGoneError, Upstream
from serving.observability.metrics import GatewayMetrics
from serving.routing.breaker import Breakers
from serving.routing.choice import Choice, ReplicaPolicy, RoutedRequest
from serving.routing.directory import Directory, Replica
from serving.routing.policies import replica_policy
from serving.routing.retry_budget import RetryBudget
from serving.settings import GatewayConfig

RETRY_AFTER_S = 5.0
# How long a replica that did not answer is passed over, unless it is the only one.
SUSPECT_S = 3.0
# A request under which two engines died is taken for the cause, and is not given to a third.
MAX_DEATHS = 2
# A request of which no policy may know anything.
UNKNOWN = RoutedRequest()


@dataclass(frozen=True, slots=True)
class Handed:
    """A request whose prompt is computed: what goes to the replica that answers, and which can read it."""

    body: bytes
    build: str


@dataclass(frozen=True, slots=True)
class Order:
    """A request as it goes to a replica, and what the replica policy may know of it.

    `queued`: requests that wait for this model in this gateway. `handed`: the body with which an engine of
    this build fetches the prompt that a prefill replica has computed, instead of computing it.
    """

    model_id: str
    path: str
    body: bytes
    request_id: str
    routed: RoutedRequest = UNKNOWN
    queued: int = 0
    handed: Handed | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """An answer that has begun, and who was chosen for it. Give it to `finished` in the end."""

    order: Order
    answer: Answer
    choice: Choice

    @property
    def replica(self) -> Replica:
        """Who answers."""
        return self.choice.replica


@dataclass(slots=True)
class _Tried:
    """What has been tried for one request.

    `machines`: those that gave no sign of life. `deaths`: engines that died under it. `is_free`: the next try
    costs nothing of the retry budget. `is_handed`: a replica was told where the computed prompt is.
    """

    replicas: set[str] = field(default_factory=set)
    machines: set[str] = field(default_factory=set)
    deaths: int = 0
    is_free: bool = False
    is_handed: bool = False

    def body(self, order: Order, replica: Replica) -> bytes:
        """What goes to this replica. A computed prompt is kept until it was fetched, which is once."""
        handed = order.handed
        if handed is None or self.is_handed or handed.build != replica.build:
            return order.body
        self.is_handed = True
        return handed.body


@dataclass(slots=True)
class Lane:
    """What the gateway keeps for one model."""

    policy: ReplicaPolicy
    budget: RetryBudget
    replicas: tuple[Replica, ...] = ()


class Forwarder:
    """Counts what is in flight, remembers who failed, and asks others within a budget."""

    def __init__(
        self,
        directory: Callable[[], Directory],
        upstream: Upstream,
        config: GatewayConfig | None = None,
        metrics: GatewayMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        wake: Callable[[str], None] = lambda model_id: None,
        draw: Callable[[], float] = random.random,
        choices: prometheus_client.Counter | None = None,
    ) -> None:
        """Args: choices: counts the reasons of choices, by default as `replica_choices`."""
        self._directory = directory
        self._upstream = upstream
        self._config = config or GatewayConfig()
        self._metrics = metrics or GatewayMetrics()
        self._choices = choices or self._metrics.replica_choices
        self._clock = clock
        self._wake = wake
        self._draw = draw
        self._suspects: dict[str, float] = {}
        self.lanes: dict[str, Lane] = {}
        self.breakers = Breakers(self._config.breaker, draw)
        self.in_flight: Counter[str] = Counter()

    async def open(self, order: Order) -> Sent:
        """Send to the best replica, then to others while none has begun to answer.

        The caller must call `finished` when it is done with the answer.

        Raises:
            ModelUnavailableError: no replica answers; it carries Retry-After.
            ComptoirError: what the engine failed at.
        """
        lane = self._lane(order.model_id)
        lane.budget.request(self._clock())
        tried = _Tried()
        while candidates := self._candidates(order.model_id, tried):
            if tried.replicas and not self._may_retry(order.model_id, lane, tried):
                break
            hedge_after_s = self._config.retries.hedge_after_s
            try:
                if hedge_after_s is None or len(candidates) < 2:
                    return await self._send(order, lane, candidates, tried)
                return await first_of(
                    lambda: self._send(order, lane, self._candidates(order.model_id, tried), tried),
                    hedge_after_s,
                    self.finished,
                )
            except ReplicaGoneError as gone:
                tried.deaths += gone.sent
                tried.is_free = gone.lost
                if tried.deaths >= MAX_DEATHS:
                    raise EngineFailedError("the engine failed on this request") from None
        self._note_model(order.model_id, ok=False)
        raise self._unavailable(order.model_id)

    def finished(self, sent: Sent) -> None:
        """Done with the answer. If it is not complete, the engine aborts its request."""
        sent.answer.close()
        self._count_down(sent.replica)
        usage = sent.answer.usage
        lane = self.lanes.get(sent.order.model_id)
        if usage is not None and lane is not None:
            lane.policy.served(
                sent.order.routed, sent.choice, usage.cached_tokens, usage.prompt_tokens
            )

    def broke(self, sent: Sent) -> None:
        """The answer had begun and stopped: the replica is to blame, though nobody can take over."""
        self.breakers.replica(sent.replica.id).broke(self._clock())

    def is_well(self, model_id: str) -> bool:
        """Whether the model is worth asking first when another could stand in for it."""
        breaker = self.breakers.models.get(model_id)
        return breaker is None or breaker.allows(self._clock())

    def reads_prompts(self, model_id: str) -> bool:
        """Whether hashes of a request's prompt would decide anything."""
        lane = self._lane(model_id)
        return lane.policy.reads_prompt and len(lane.replicas) > 1

    # ---- one replica -------------------------------------------------------------------------------------

    async def _send(
        self, order: Order, lane: Lane, candidates: Sequence[Replica], tried: _Tried
    ) -> Sent:
        if not candidates:
            raise ReplicaGoneError("nobody is left")
        if order.handed is not None and not tried.is_handed:
            # While a changed file is rolled out, some replicas are of another build.
            readers = [one for one in candidates if one.build == order.handed.build]
            candidates = readers or candidates
        choice = lane.policy.choose(order.routed, candidates, self.in_flight)
        replica = choice.replica
        tried.replicas.add(replica.id)
        self._choices.labels(order.model_id, choice.policy, choice.reason).inc()
        self.in_flight[replica.id] += 1
        breaker = self.breakers.replica(replica.id)
        attempt = breaker.begin(self._clock())
        try:
            answer = await self._upstream.post(
                replica, order.path, tried.body(order, replica), order.request_id, order.queued
            )
            if answer.status == 200 and stream_error_at(answer.first) == 0:
                # The engine failed before it produced a token: nothing has reached the client.
                answer.close()
                lost = ENGINE_DEAD in answer.first
                raise ReplicaGoneError("error before the first token", sent=True, lost=lost)
        except (ReplicaGoneError, EngineTimeoutError) as error:
            self._count_down(replica)
            breaker.record(False, self._clock(), attempt)
            if isinstance(error, ReplicaGoneError):
                self._suspects[replica.id] = self._clock() + SUSPECT_S
                if error.unreachable:
                    tried.machines.add(replica.machine)
            raise
        except BaseException:
            self._count_down(replica)
            breaker.abandon(self._clock(), attempt)
            raise
        finally:
            lane.policy.began(choice)
        breaker.record(answer.status < 500, self._clock(), attempt)
        self._note_model(order.model_id, ok=True)
        return Sent(order, answer, choice)

    def _count_down(self, replica: Replica) -> None:
        self.in_flight[replica.id] -= 1
        if self.in_flight[replica.id] <= 0:
            del self.in_flight[replica.id]

    def _candidates(self, model_id: str, tried: _Tried) -> Sequence[Replica]:
        """Whom to ask: not twice, suspects and those with an open breaker only if there is nobody else."""
        replicas: Sequence[Replica] = self._lane(model_id).replicas
        if tried.replicas:
            replicas = [replica for replica in replicas if replica.id not in tried.replicas]
        if tried.machines:
            elsewhere = [one for one in replicas if one.machine not in tried.machines]
            replicas = elsewhere or replicas
        now = self._clock()
        if self._suspects:
            self._suspects = {name: at for name, at in self._suspects.items() if at > now}
            well = [replica for replica in replicas if replica.id not in self._suspects]
            replicas = well or replicas
        return self.breakers.choose_allowed(replicas, now)

    # ---- one model ---------------------------------------------------------------------------------------

    def _lane(self, model_id: str) -> Lane:
        models = self._directory().models
        lane = self.lanes.get(model_id)
        if lane is None:
            # Models come and go; what is kept for those that are gone goes with them.
            self.lanes = {name: one for name, one in self.lanes.items() if name in models}
            policy = replica_policy(self._config.replica_routing, self._draw, self._config.replicas)
            lane = self.lanes[model_id] = Lane(policy, RetryBudget(self._config.retries))
        model = models.get(model_id)
        replicas = model.replicas if model is not None else ()
        if replicas is not lane.replicas:
            self._replicas_changed(model_id, lane, replicas)
        return lane

    def _replicas_changed(self, model_id: str, lane: Lane, replicas: tuple[Replica, ...]) -> None:
        before = {replica.id for replica in lane.replicas}
        lane.replicas = replicas
        now = {replica.id for replica in replicas}
        if before == now:
            return
        lane.policy.forget(now)
        known = {replica.id for one in self.lanes.values() for replica in one.replicas}
        # With other replicas the model is another: it gets a chance at once.
        self.breakers.keep(known, self.lanes.keys() - {model_id})

    def _may_retry(self, model_id: str, lane: Lane, tried: _Tried) -> bool:
        if len(tried.replicas) >= self._config.retries.max_attempts:
            return False
        # A lost replica takes all its requests along at once, and does no more work for them. What comes
        # later passes it over: it is a suspect, its breaker opens.
        if not tried.is_free and not lane.budget.try_retry(self._clock()):
            return False
        self._metrics.retries.labels(model_id).inc()
        return True

    def _note_model(self, model_id: str, *, ok: bool) -> None:
        if ok and model_id not in self.breakers.models:
            return
        breaker, now = self.breakers.model(model_id), self._clock()
        breaker.record(ok, now, breaker.begin(now))

    def _unavailable(self, model_id: str) -> ComptoirError:
        model = self._directory().models.get(model_id)
        starting = model is not None and not model.replicas
        if starting:
            # It may be scaled to zero: Serve starts a replica when it is asked for one.
            self._wake(model_id)
        return ModelUnavailableError(
            "the model is starting; try again shortly"
            if starting
            else "no replica of the model answers now; try again shortly",
            param="model",
            retry_after_s=RETRY_AFTER_S,
        )
