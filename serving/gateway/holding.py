"""Holds requests that have not begun while no replica of their model can be asked, whatever the reason.

The model may sleep (scaled to zero), be redeployed, have crashed, be on a lost node, or be cut off by
its breaker. One check for all requests of a model, every tenth of a second; those that can go are released,
tenants taking turns.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from serving.admission.deadline import Deadline
from serving.api import SEE_MODELS
from serving.config.admission import AdmissionConfig
from serving.discovery.directory import Directory, Model
from serving.errors import MODEL_RETRY_S, ComptoirError, ModelNotFoundError, ModelUnavailableError
from serving.gateway.busy import BusyError
from serving.gateway.listing import model_state
from serving.gateway.model_queue import OnWait
from serving.gateway.replica_request import RetryState
from serving.telemetry.metrics import GatewayMetrics

# How often it looks whether a replica can be asked.
LOOK_S = 0.1
# A model that is no more may come back in the course of a redeployment; so long somebody waits for it.
GONE_S = 5.0

# Why nobody can be asked: see `cause_of`.
Cause = Literal["asleep", "starting", "crashed", "unreachable", "gone"]


# `Forwarder.can_ask`.
CanAsk = Callable[[str, RetryState | None, str], bool]


@dataclass(eq=False, slots=True)
class _Waiter:
    """One held request: its candidates, its attempts there, whether it had to make room."""

    tenant: str
    tried: Mapping[str, RetryState]
    woken: asyncio.Future[bool]
    is_displaced: bool = False


@dataclass(slots=True)
class _Line:
    """The requests held for one model, in order of arrival, and their number by tenant."""

    waiters: dict[_Waiter, None] = field(default_factory=dict)
    tenants: Counter[str] = field(default_factory=Counter)
    ticker: asyncio.TimerHandle | None = None


class Holding:
    """The held requests of one gateway, a bounded number of them and for a bounded time.

    Args:
        wake: asks for a replica of a model that sleeps.
        can_ask: whether a request could be sent to a model now of which this has been tried by this tenant.
    """

    def __init__(
        self,
        config: AdmissionConfig,
        directory: Callable[[], Directory],
        wake: Callable[[str], None],
        can_ask: CanAsk,
        metrics: GatewayMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._directory = directory
        self._wake = wake
        self._can_ask = can_ask
        self._metrics = metrics or GatewayMetrics()
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        # When a model was first found missing by somebody who waits for it.
        self._gone_s: dict[str, float] = {}

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Apply these bounds from the next request on."""
        self._config = config

    def held(self, model_id: str) -> int:
        """Requests that are held for the model now."""
        line = self._lines.get(model_id)
        return len(line.waiters) if line is not None else 0

    def wake(self, model_id: str) -> None:
        """Ask for a replica of a model that has none, and may sleep; returns at once.

        A model that never had a replica has not said whether it may sleep; for others this does nothing.
        """
        model = self._directory().models.get(model_id)
        if model is not None and not model.replicas:
            self._wake(model_id)

    async def until(
        self,
        tried: Mapping[str, RetryState],
        tenant: str,
        deadline: Deadline,
        on_wait: OnWait | None = None,
    ) -> None:
        """Wait until one of the models can be asked.

        Args:
            tried: the attempts, by candidate model; the request is counted at the first.
            on_wait: called every `keep_alive_s` while it waits; an exception from it ends the waiting.

        Raises:
            BusyError: too many requests are held for the model already, of all or of this tenant; or it had
                to make room for a tenant with fewer.
            ModelUnavailableError: waiting is pointless, or the deadline has passed.
            ModelNotFoundError: the models have been removed.
        """
        model_id = next(iter(tried))
        if all(self._never_comes(name) for name in tried):
            raise self._in_vain(tried)
        line = self._enter(model_id, tenant)
        cause = cause_of(self._directory().models.get(model_id))
        self._metrics.held.labels(model_id, cause).inc()
        loop = asyncio.get_running_loop()
        waiter = _Waiter(tenant, tried, loop.create_future())
        line.waiters[waiter] = None
        for name in tried:
            self.wake(name)
        if line.ticker is None:
            line.ticker = loop.call_later(LOOK_S, self._look, line)
        try:
            if not await self._woken(waiter, deadline, on_wait):
                if waiter.is_displaced:
                    raise BusyError("held_displaced", self._config.max_retry_after_s)
                raise self._in_vain(tried)
        finally:
            self._leave(model_id, line, waiter)

    # ---- inside ------------------------------------------------------------------------------------------

    def _enter(self, model_id: str, tenant: str) -> _Line:
        line = self._lines.get(model_id) or _Line()
        if line.tenants[tenant] >= self._config.max_waiting_per_tenant:
            raise BusyError("held_tenant_full", self._config.max_retry_after_s)
        if len(line.waiters) >= self._config.max_waiting and not self._make_room(line, tenant):
            raise BusyError("held_full", self._config.max_retry_after_s)
        self._lines[model_id] = line
        line.tenants[tenant] += 1
        return line

    def _make_room(self, line: _Line, tenant: str) -> bool:
        """Refuse the newest request of the tenant with the most, if it has more than this one would have."""
        # Not `tenants`, which counts those too that were let go a moment ago.
        held = Counter(waiter.tenant for waiter in line.waiters)
        fullest, count = held.most_common(1)[0] if held else ("", 0)
        if count <= held[tenant] + 1:
            return False
        newest = next(one for one in reversed(line.waiters) if one.tenant == fullest)
        newest.is_displaced = True
        self._let_go(line, newest, can_go=False)
        return True

    def _leave(self, model_id: str, line: _Line, waiter: _Waiter) -> None:
        line.waiters.pop(waiter, None)
        line.tenants[waiter.tenant] -= 1
        if not line.tenants[waiter.tenant]:
            del line.tenants[waiter.tenant]
        if not line.tenants:
            if line.ticker is not None:
                line.ticker.cancel()
            self._lines.pop(model_id, None)
            self._gone_s.pop(model_id, None)

    async def _woken(self, waiter: _Waiter, deadline: Deadline, on_wait: OnWait | None) -> bool:
        """Whether the request can go; False: waiting is pointless."""
        began = reminded = self._clock()
        while not waiter.woken.done():
            now = self._clock()
            if deadline.has_passed(now):
                raise ModelUnavailableError(
                    "no replica of the model answered in time; try again shortly",
                    param="model",
                    retry_after_s=MODEL_RETRY_S,
                )
            left_s = deadline.left_s(now)
            if on_wait is not None:
                keep_alive_s = self._config.keep_alive_s
                if now - reminded >= keep_alive_s:
                    reminded = now
                    await on_wait(now - began)
                left_s = min(left_s, reminded + keep_alive_s - now)
            # Unlike `wait_for`, it leaves the future alone when this task is cancelled.
            await asyncio.wait((waiter.woken,), timeout=max(left_s, 0.001))
        return waiter.woken.result()

    def _look(self, line: _Line) -> None:
        """Release requests that can go or wait in vain; check again soon while any wait."""
        # First of all: whatever happens here, there is a next time.
        ticker = line.ticker = asyncio.get_running_loop().call_later(LOOK_S, self._look, line)
        # What holds for all that wait for a model is looked up once.
        models = {name: None for waiter in line.waiters for name in waiter.tried}
        can_be_asked = {name for name in models if self._can_ask(name, None, "")}
        in_vain = {name for name in models if self._never_comes(name)}
        for name in models:
            self.wake(name)
        ready = [
            waiter
            for waiter in line.waiters
            if any(
                name in can_be_asked and self._can_ask(name, tried, waiter.tenant)
                for name, tried in waiter.tried.items()
            )
        ]
        for waiter in by_turns(ready):
            self._let_go(line, waiter, can_go=True)
        if in_vain:
            for waiter in [one for one in line.waiters if in_vain.issuperset(one.tried)]:
                self._let_go(line, waiter, can_go=False)
        if not line.waiters:
            ticker.cancel()
            line.ticker = None

    def _let_go(self, line: _Line, waiter: _Waiter, *, can_go: bool) -> None:
        line.waiters.pop(waiter, None)
        if not waiter.woken.done():
            waiter.woken.set_result(can_go)

    def _in_vain(self, model_ids: Iterable[str]) -> ComptoirError:
        models = self._directory().models
        if all(model_id not in models for model_id in model_ids):
            return ModelNotFoundError(f"the model has been removed; {SEE_MODELS}", param="model")
        return ModelUnavailableError(
            "the model does not start: its replicas fail again and again",
            param="model",
            retry_after_s=MODEL_RETRY_S * 6,
        )

    def _never_comes(self, model_id: str) -> bool:
        model = self._directory().models.get(model_id)
        if model is not None:
            self._gone_s.pop(model_id, None)
            return not model.replicas and model.fails_to_start
        now = self._clock()
        return now - self._gone_s.setdefault(model_id, now) >= GONE_S


def cause_of(model: Model | None) -> Cause:
    """The reason why no replica of the model can be asked."""
    if model is None:
        return "gone"
    if model.replicas:
        return "unreachable"
    state = model_state(model)
    if state == "idle":
        return "asleep"
    return "crashed" if model.state in ("RUNNING", "UNHEALTHY") else "starting"


def by_turns(waiters: Iterable[_Waiter]) -> list[_Waiter]:
    """One request of each tenant, then the next of each; a tenant's own in order."""
    queues: dict[str, deque[_Waiter]] = {}
    for waiter in waiters:
        queues.setdefault(waiter.tenant, deque()).append(waiter)
    turns: list[_Waiter] = []
    while queues:
        for tenant in list(queues):
            turns.append(queues[tenant].popleft())
            if not queues[tenant]:
                del queues[tenant]
    return turns
