"""Admission: lets a request through to its model, or makes it wait for a slot in a fair queue.

A model is busy when its gateway has as many requests open at it as `capacity` says. The order is
`FairQueue`'s; here are the clock, the futures and the errors. While a model is not busy, nothing is created
but the request's slot, and nothing is awaited.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from serving.admission.deadline import Deadline
from serving.admission.drain import capacity
from serving.admission.fair_queue import UNLIMITED, FairQueue, QueueSnapshot
from serving.admission.fair_shares import Entry
from serving.config.admission import AdmissionConfig, Priority
from serving.config.routing import Failure
from serving.discovery.directory import Directory, Model, Replica
from serving.errors import RateLimitedError
from serving.records import record
from serving.replica_protocol import Usage
from serving.tenancy.keys import Caller

# How often a queue looks for replicas that came or went, and how old their statistics may be meanwhile.
TICK_S, REPORT_S = 0.25, 0.5

# Called every `keep_alive_s` while a request waits, with the seconds that it has waited.
OnWait = Callable[[float], Awaitable[None]]

_REFUSALS: Mapping[str, tuple[str, Failure]] = {
    "full": ("the model is busy and its queue is full; try again later", "saturated"),
    "tenant_full": (
        "the model is busy and too many of your requests wait for it already; try again later",
        "saturated",
    ),
    "displaced": (
        "the model is busy and its queue is full of requests of others, who have fewer in it; "
        "try again later",
        "saturated",
    ),
    "held_full": (
        "no replica of the model answers now and too many requests wait for it; try again later",
        "saturated",
    ),
    "held_tenant_full": (
        "no replica of the model answers now and too many of your requests wait for it; try again later",
        "saturated",
    ),
    "held_displaced": (
        "no replica of the model answers now and too many requests wait for it, most of them yours; "
        "try again later",
        "saturated",
    ),
    "deadline": (
        "the model is busy: the request would not begin before its deadline; try again later",
        "deadline",
    ),
    "expired": ("the model is busy: the request's deadline passed while it waited", "deadline"),
}


class BusyError(RateLimitedError):
    """The model is busy and this request does not get a slot: 429 with Retry-After.

    `reason` is "full", "tenant_full", "displaced", "deadline" or "expired", or "held_full",
    "held_tenant_full" or "held_displaced" where nobody can be asked; `failure` is what it is to a fallback.
    """

    def __init__(self, reason: str, retry_after_s: float) -> None:
        message, self.failure = _REFUSALS[reason]
        self.reason = reason
        super().__init__(message, param="model", retry_after_s=retry_after_s)


@record
class Estimate:
    """What a request may cost; None where it names no limit of its output, 0 where there is none."""

    prompt_tokens: int
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class AdmissionSnapshot:
    """One model in this gateway, now (`slots`, `open`, `queue`) and since the start (the rest).

    `slots` is 0 while no replica is known. `waits` and `wait_s_total` count, by class, requests that waited
    and then got a slot; `refused` counts by `BusyError.reason`.
    """

    model_id: str
    slots: int
    open: int
    queue: QueueSnapshot
    admitted: int
    waits: Mapping[Priority, int]
    wait_s_total: Mapping[Priority, float]
    refused: Mapping[str, int]


@dataclass(slots=True, eq=False)
class Door:
    """One model: its queue, who is to be woken, and what is counted."""

    model_id: str
    queue: FairQueue
    replicas: tuple[Replica, ...] | None = None
    refreshed_s: float = -math.inf
    admitted: int = 0
    waits: Counter[Priority] = field(default_factory=Counter)
    wait_s_total: defaultdict[Priority, float] = field(default_factory=lambda: defaultdict(float))
    refused: Counter[str] = field(default_factory=Counter)
    waiters: dict[Entry, asyncio.Future[None]] = field(default_factory=dict)
    ticker: asyncio.TimerHandle | None = None


class Slot:
    """The right to have one request open at a model. `release` it, or use it as a context manager."""

    __slots__ = ("_admission", "_door", "_entry", "_is_held", "usage", "waited_s")

    def __init__(
        self, admission: Admission, door: Door, entry: Entry, waited_s: float = 0.0
    ) -> None:
        self._admission = admission
        self._door = door
        self._entry = entry
        self._is_held = True
        self.waited_s = waited_s
        # Set it when the engine has said; without it the estimate stays charged, until `correct`.
        self.usage: Usage | None = None

    def release(self) -> None:
        """The request is over, once or more often; the next one gets the slot."""
        if self._is_held:
            self._is_held = False
            self._admission.release(self._door, self._entry, self.usage)

    def correct(self, usage: Usage) -> None:
        """What the request cost became known after its end, or was more."""
        self._door.queue.correct(self._entry, usage.prompt_tokens, usage.output_tokens)

    def give_back(self) -> None:
        """No engine had the request: its tenant is not charged."""
        if self._is_held:
            self._is_held = False
            self._admission.give_back(self._door, self._entry)

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class Admission:
    """The doors of all models in one gateway.

    Args:
        directory: what runs now; asked while requests wait.
        gateways: how many gateways share the replicas.
        clock: seconds, never going back; deadlines are in its time.
    """

    def __init__(
        self,
        config: AdmissionConfig,
        directory: Callable[[], Directory],
        gateways: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._directory = directory
        self._gateways = gateways
        self._clock = clock
        self._doors: dict[str, Door] = {}

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Go on with other figures; what waits keeps its deadline."""
        if config == self._config:
            return
        self._config = config
        for door in self._doors.values():
            door.queue.reconfigure(config)
            # Looked at anew by the next request or tick.
            door.replicas, door.refreshed_s = None, -math.inf

    async def acquire(
        self,
        model: Model,
        caller: Caller,
        estimate: Estimate,
        deadline: Deadline | None = None,
        on_wait: OnWait | None = None,
    ) -> Slot:
        """A slot at the model, at once or after waiting; release it when the answer is complete.

        Args:
            deadline: until when it may wait; by default `max_wait_s` from now.
            on_wait: called every `keep_alive_s` while it waits; what it raises ends the waiting.

        Raises:
            BusyError: it may not wait, or its deadline passed; status 429, with Retry-After.
        """
        door = self._doors.get(model.id) or self._new_door(model.id)
        if door.replicas is not model.replicas:
            self._refresh(door, model.replicas)
        entry = Entry(
            caller.name,
            caller.priority,
            caller.weight,
            estimate.prompt_tokens,
            estimate.max_output_tokens,
        )
        if door.queue.admit(entry):
            door.admitted += 1
            return Slot(self, door, entry)
        now = self._clock()
        entry.deadline_s = now + self._config.max_wait_s if deadline is None else deadline.at_s
        refusal = door.queue.offer(entry, now)
        self._dispatch(door)
        if refusal is not None:
            door.refused[refusal.reason] += 1
            raise BusyError(refusal.reason, refusal.retry_after_s)
        if entry.state != "dispatched":
            await self._wait(door, entry, on_wait)
        return Slot(self, door, entry, self._clock() - now)

    def release(self, door: Door, entry: Entry, usage: Usage | None) -> None:
        """For `Slot`."""
        if usage is None:
            door.queue.finished(entry)
        else:
            door.queue.finished(entry, usage.prompt_tokens, usage.output_tokens)
        if door.queue.waiting:
            self._dispatch(door)

    def give_back(self, door: Door, entry: Entry) -> None:
        """For `Slot`."""
        door.queue.give_back(entry)
        door.admitted -= 1
        if door.queue.waiting:
            self._dispatch(door)

    def demand(self, model_id: str) -> int:
        """Requests that wait for the model in this gateway, or have a slot at it."""
        door = self._doors.get(model_id)
        return door.queue.waiting + door.queue.open if door is not None else 0

    def is_busy(self, model_id: str) -> bool:
        """Whether the next request for the model is likely to wait."""
        door = self._doors.get(model_id)
        return door is not None and (door.queue.waiting > 0 or door.queue.open >= door.queue.slots)

    def queued(self, model_id: str) -> int:
        """Requests that wait for the model in this gateway (`QUEUED_HEADER`)."""
        door = self._doors.get(model_id)
        return door.queue.waiting if door is not None else 0

    def snapshots(self) -> list[AdmissionSnapshot]:
        """Every model that was asked for, for /status and metrics."""
        now = self._clock()
        return [
            AdmissionSnapshot(
                model_id=door.model_id,
                slots=0 if door.queue.slots == UNLIMITED else door.queue.slots,
                open=door.queue.open,
                queue=door.queue.snapshot(now),
                admitted=door.admitted,
                waits=dict(door.waits),
                wait_s_total=dict(door.wait_s_total),
                refused=dict(door.refused),
            )
            for door in self._doors.values()
        ]

    # ---- waiting -----------------------------------------------------------------------------------------

    async def _wait(self, door: Door, entry: Entry, on_wait: OnWait | None) -> None:
        loop = asyncio.get_running_loop()
        woken = door.waiters[entry] = loop.create_future()
        if door.ticker is None:
            door.ticker = loop.call_later(TICK_S, self._tick, door)
        keep_alive_s = self._config.keep_alive_s
        remind_s = entry.offered_s + keep_alive_s
        try:
            while entry.state == "waiting":
                now = self._clock()
                if now >= entry.deadline_s:
                    self._wake_dropped(door, now)
                elif on_wait is not None and now >= remind_s:
                    remind_s = now + keep_alive_s
                    await on_wait(now - entry.offered_s)
                else:
                    until_s = (
                        entry.deadline_s if on_wait is None else min(entry.deadline_s, remind_s)
                    )
                    # Unlike `wait_for`, it leaves the future alone when this task is cancelled.
                    await asyncio.wait((woken,), timeout=until_s - now)
        except BaseException:
            self._leave(door, entry)
            raise
        finally:
            door.waiters.pop(entry, None)
        if entry.state != "dispatched":
            reason = entry.state
            door.refused[reason] += 1
            raise BusyError(reason, door.queue.retry_after_s(door.queue.waiting))
        door.waits[entry.priority] += 1
        door.wait_s_total[entry.priority] += self._clock() - entry.offered_s

    def _leave(self, door: Door, entry: Entry) -> None:
        """Nobody waits for this entry any more. If it has just been given a slot, the next one gets that."""
        if entry.state == "dispatched":
            door.queue.give_back(entry)
            door.admitted -= 1
            self._dispatch(door)
        else:
            door.queue.cancel(entry)

    def _dispatch(self, door: Door) -> None:
        """Give free slots to those that wait."""
        now = self._clock()
        while (entry := door.queue.next(now)) is not None:
            door.admitted += 1
            _wake(door, entry)
        self._wake_dropped(door, now)

    def _wake_dropped(self, door: Door, now: float) -> None:
        for entry in door.queue.expire(now):
            _wake(door, entry)

    def _tick(self, door: Door) -> None:
        """While someone waits: replicas may have come or gone, and deadlines passed."""
        door.ticker = None
        model = self._directory().models.get(door.model_id)
        replicas = model.replicas if model is not None else ()
        if replicas is not door.replicas:
            self._refresh(door, replicas)
        self._dispatch(door)
        if door.queue.waiting:
            door.ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick, door)

    def _refresh(self, door: Door, replicas: tuple[Replica, ...]) -> None:
        queue, now = door.queue, self._clock()
        if queue.waiting and now - door.refreshed_s < REPORT_S:
            # Each replica reports for itself; that must not make the capacity grow more often.
            return
        door.replicas, door.refreshed_s = replicas, now
        stats = (replica.stats for replica in replicas)
        current = queue.slots if queue.waiting and queue.slots != UNLIMITED else None
        # Without replicas nobody is held back: the forwarder knows what to say then.
        queue.slots = capacity(stats, self._config, self._gateways, current) or UNLIMITED
        if queue.waiting:
            self._dispatch(door)

    def _new_door(self, model_id: str) -> Door:
        # Models come and go; a door that is in use stays.
        known = self._directory().models
        self._doors = {
            name: door
            for name, door in self._doors.items()
            if name in known or door.queue.open or door.queue.waiting
        }
        door = self._doors[model_id] = Door(model_id, FairQueue(self._config))
        return door


def _wake(door: Door, entry: Entry) -> None:
    woken = door.waiters.get(entry)
    if woken is not None and not woken.done():
        woken.set_result(None)
