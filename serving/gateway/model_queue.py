"""One model's queue in this gateway: wake-ups, slots, and counts.

The order is `FairQueue`'s; here are the clock, the futures and the errors.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from serving.admission.drain import capacity
from serving.admission.fair_queue import UNLIMITED, FairQueue, QueueSnapshot
from serving.admission.fair_shares import Entry
from serving.config.admission import AdmissionConfig, Priority
from serving.discovery.directory import Directory, Replica
from serving.gateway.busy import BusyError
from serving.replica_protocol import Usage

# How often a queue looks for replicas that came or went, and how old their statistics may be meanwhile.
TICK_S, REPORT_S = 0.25, 0.5

# Called every `keep_alive_s` while a request waits, with the seconds that it has waited.
OnWait = Callable[[float], Awaitable[None]]


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


class ModelQueue:
    """The slots of one model, and the requests that wait for one. The arguments are those of `Admission`."""

    def __init__(
        self,
        model_id: str,
        config: AdmissionConfig,
        directory: Callable[[], Directory],
        gateways: int,
        clock: Callable[[], float],
    ) -> None:
        self.model_id = model_id
        self.fair = FairQueue(config)
        self.replicas: tuple[Replica, ...] | None = None
        self.admitted = 0
        self.waiters: dict[Entry, asyncio.Future[None]] = {}
        self._config = config
        self._directory = directory
        self._gateways = gateways
        self._clock = clock
        self._refreshed_s = -math.inf
        self._waits: Counter[Priority] = Counter()
        self._wait_s_total: defaultdict[Priority, float] = defaultdict(float)
        self._refused: Counter[str] = Counter()
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether somebody has a slot, or waits for one."""
        return bool(self.fair.open or self.fair.waiting)

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Apply other settings; waiting requests keep their deadlines."""
        self._config = config
        self.fair.reconfigure(config)
        # Looked at anew by the next request or tick.
        self.replicas, self._refreshed_s = None, -math.inf

    async def enter(self, entry: Entry, now: float, on_wait: OnWait | None) -> None:
        """Wait for a slot.

        Raises:
            BusyError: it may not wait, or its deadline passed.
        """
        refusal = self.fair.offer(entry, now)
        self.dispatch()
        if refusal is not None:
            self._refused[refusal.reason] += 1
            raise BusyError(refusal.reason, refusal.retry_after_s)
        if entry.state != "dispatched":
            await self._wait(entry, on_wait)

    def give_back(self, entry: Entry) -> None:
        """Return an unused slot: its tenant is not charged."""
        self.fair.give_back(entry)
        self.admitted -= 1
        if self.fair.waiting:
            self.dispatch()

    def dispatch(self) -> None:
        """Give free slots to those that wait."""
        now = self._clock()
        while (entry := self.fair.next(now)) is not None:
            self.admitted += 1
            self._wake(entry)
        self._wake_dropped(now)

    def refresh(self, replicas: tuple[Replica, ...]) -> None:
        """Recompute the slots after a change of replicas or their statistics."""
        queue, now = self.fair, self._clock()
        if queue.waiting and now - self._refreshed_s < REPORT_S:
            # Each replica reports for itself; that must not make the capacity grow more often.
            return
        self.replicas, self._refreshed_s = replicas, now
        stats = (replica.stats for replica in replicas)
        current = queue.slots if queue.waiting and queue.slots != UNLIMITED else None
        # Without replicas nobody is held back: the forwarder knows what to say then.
        queue.slots = capacity(stats, self._config, self._gateways, current) or UNLIMITED
        if queue.waiting:
            self.dispatch()

    def snapshot(self, now: float) -> AdmissionSnapshot:
        """The state, for /status and metrics."""
        return AdmissionSnapshot(
            model_id=self.model_id,
            slots=0 if self.fair.slots == UNLIMITED else self.fair.slots,
            open=self.fair.open,
            queue=self.fair.snapshot(now),
            admitted=self.admitted,
            waits=dict(self._waits),
            wait_s_total=dict(self._wait_s_total),
            refused=dict(self._refused),
        )

    # ---- waiting -----------------------------------------------------------------------------------------

    async def _wait(self, entry: Entry, on_wait: OnWait | None) -> None:
        loop = asyncio.get_running_loop()
        woken = self.waiters[entry] = loop.create_future()
        if self._ticker is None:
            self._ticker = loop.call_later(TICK_S, self._tick)
        keep_alive_s = self._config.keep_alive_s
        remind_s = entry.offered_s + keep_alive_s
        try:
            while entry.state == "waiting":
                now = self._clock()
                if now >= entry.deadline_s:
                    self._wake_dropped(now)
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
            self._leave(entry)
            raise
        finally:
            self.waiters.pop(entry, None)
        if entry.state != "dispatched":
            reason = entry.state
            self._refused[reason] += 1
            raise BusyError(reason, self.fair.retry_after_s(self.fair.waiting))
        self._waits[entry.priority] += 1
        self._wait_s_total[entry.priority] += self._clock() - entry.offered_s

    def _leave(self, entry: Entry) -> None:
        """Remove an abandoned entry. If it has just been given a slot, the next one gets that."""
        if entry.state == "dispatched":
            self.give_back(entry)
        else:
            self.fair.cancel(entry)

    def _wake_dropped(self, now: float) -> None:
        for entry in self.fair.expire(now):
            self._wake(entry)

    def _tick(self) -> None:
        """Check, while requests wait, for changed replicas and passed deadlines."""
        self._ticker = None
        model = self._directory().models.get(self.model_id)
        replicas = model.replicas if model is not None else ()
        if replicas is not self.replicas:
            self.refresh(replicas)
        self.dispatch()
        if self.fair.waiting:
            self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _wake(self, entry: Entry) -> None:
        woken = self.waiters.get(entry)
        if woken is not None and not woken.done():
            woken.set_result(None)


class Slot:
    """The right to have one request open at a model. `release` it, or use it as a context manager."""

    __slots__ = ("_entry", "_is_held", "_queue", "usage", "waited_s")

    def __init__(self, queue: ModelQueue, entry: Entry, waited_s: float = 0.0) -> None:
        self._queue = queue
        self._entry = entry
        self._is_held = True
        self.waited_s = waited_s
        # Set it when the engine has said; without it the estimate stays charged, until `correct`.
        self.usage: Usage | None = None

    def release(self) -> None:
        """Release the slot to the next request; may be called repeatedly."""
        if not self._is_held:
            return
        self._is_held = False
        queue, usage = self._queue, self.usage
        if usage is None:
            queue.fair.finished(self._entry)
        else:
            queue.fair.finished(self._entry, usage.prompt_tokens, usage.output_tokens)
        if queue.fair.waiting:
            queue.dispatch()

    def correct(self, usage: Usage) -> None:
        """Correct the charge: the cost became known after the end, or was higher."""
        self._queue.fair.correct(self._entry, usage.prompt_tokens, usage.output_tokens)

    def give_back(self) -> None:
        """Return the slot of a request that no engine had: its tenant is not charged."""
        if self._is_held:
            self._is_held = False
            self._queue.give_back(self._entry)

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
