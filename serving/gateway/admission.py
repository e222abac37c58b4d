"""Admission: lets a request through to its model, or makes it wait for a slot in a fair queue.

A model is busy when its gateway has as many requests open at it as `capacity` says. While it is not, nothing
is created but the request's slot, and nothing is awaited.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.admission.deadline import Deadline
from serving.admission.fair_shares import Entry
from serving.config.admission import AdmissionConfig
from serving.discovery.directory import Directory, Model
from serving.gateway.model_queue import AdmissionSnapshot, ModelQueue, OnWait, Slot
from serving.records import record
from serving.tenancy.keys import Caller


@record
class Estimate:
    """The estimated cost of a request; None where it names no limit of its output, 0 without output."""

    prompt_tokens: int
    max_output_tokens: int | None = None


class Admission:
    """The queues of all models in one gateway.

    Args:
        directory: the running models; read while requests wait.
        gateways: how many gateways share the replicas.
        clock: monotonic seconds; deadlines are in its time.
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
        self._queues: dict[str, ModelQueue] = {}

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Apply other settings; waiting requests keep their deadlines."""
        if config == self._config:
            return
        self._config = config
        for queue in self._queues.values():
            queue.reconfigure(config)

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
            on_wait: called every `keep_alive_s` while it waits; an exception from it ends the waiting.

        Raises:
            BusyError: it may not wait, or its deadline passed; status 429, with Retry-After.
        """
        queue = self._queues.get(model.id) or self._new_queue(model.id)
        if queue.replicas is not model.replicas:
            queue.refresh(model.replicas)
        entry = Entry(
            caller.name,
            caller.priority,
            caller.weight,
            estimate.prompt_tokens,
            estimate.max_output_tokens,
        )
        if queue.fair.admit(entry):
            queue.admitted += 1
            return Slot(queue, entry)
        now = self._clock()
        entry.deadline_s = now + self._config.max_wait_s if deadline is None else deadline.at_s
        await queue.enter(entry, now, on_wait)
        return Slot(queue, entry, self._clock() - now)

    def demand(self, model_id: str) -> int:
        """Requests that wait for the model in this gateway, or have a slot at it."""
        queue = self._queues.get(model_id)
        return queue.fair.waiting + queue.fair.open if queue is not None else 0

    def is_busy(self, model_id: str) -> bool:
        """Whether the next request for the model is likely to wait."""
        queue = self._queues.get(model_id)
        return queue is not None and (queue.fair.waiting > 0 or queue.fair.open >= queue.fair.slots)

    def queued(self, model_id: str) -> int:
        """Requests that wait for the model in this gateway (`QUEUED_HEADER`)."""
        queue = self._queues.get(model_id)
        return queue.fair.waiting if queue is not None else 0

    def snapshots(self) -> list[AdmissionSnapshot]:
        """Snapshots of every requested model, for /status and metrics."""
        now = self._clock()
        return [queue.snapshot(now) for queue in self._queues.values()]

    def _new_queue(self, model_id: str) -> ModelQueue:
        # Models come and go; a queue that is in use stays.
        known = self._directory().models
        self._queues = {
            name: queue for name, queue in self._queues.items() if name in known or queue.is_in_use
        }
        queue = self._queues[model_id] = ModelQueue(
            model_id, self._config, self._directory, self._gateways, self._clock
        )
        return queue
