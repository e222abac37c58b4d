"""Collects the bills that replicas could not send with their answers, and has all bills recorded.

A replica is asked after this gateway's requests to it, when it reports unclaimed bills (of a gateway that
died), and while it shuts down. Otherwise no replica is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from serving.discovery.directory import Directory, Replica
from serving.errors import EngineTimeoutError
from serving.gateway.bills import Bills, Desk
from serving.gateway.upstream import ReplicaBrokeError, ReplicaGoneError, Upstream
from serving.replica_protocol import BILLS_PATH, MAX_COLLECTED, Collection, parse_bills
from serving.tenancy.bills import BillSink

logger = logging.getLogger("ray.serve.comptoir")

ASK_TIMEOUT_S = 5.0
ASKED_AT_ONCE = 32
# A replica that does not answer so often in a row has gone; one that is still listed knows of no bills.
MAX_FAILURES, MAX_FAILURES_LISTED = 3, 60
# What a sink is given at once: a few hundred kilobytes.
MAX_RECORDED = 1000


class Collector:
    """The task of one gateway that settles bills with replicas."""

    def __init__(
        self,
        bills: Bills,
        directory: Callable[[], Directory],
        upstream: Upstream,
        sink: BillSink,
        period_s: float,
    ) -> None:
        self._bills = bills
        self._directory = directory
        self._upstream = upstream
        self._sink = sink
        self._period_s = period_s
        self._seen: Directory | None = None
        self._listed: dict[str, Replica] = {}
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Whether it still collects."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Begin to collect."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Settle all bills that can be settled now: collect, record, acknowledge."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        for _ in range(2):
            await self.collect()
        await self._sink.close()

    async def collect(self) -> None:
        """One round: record new bills, then acknowledge them to replicas and ask for more."""
        await self._record()
        self._look()
        desks = set(self._bills.due())
        for replica in self._listed.values():
            if replica.stats.unclaimed_bills:
                desks.add(self._bills.open_desk(replica))
        if desks:
            await asyncio.gather(*map(self._ask, desks))
            await self._record()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            await self.collect()

    async def _record(self) -> None:
        while self._bills.unrecorded:
            batch = list(self._bills.unrecorded.items())[:MAX_RECORDED]
            try:
                await self._sink.record([billed for _, (_, billed) in batch])
            except OSError as error:
                # The replicas keep what is not acknowledged, within bounds.
                logger.error("bills cannot be recorded: %s", error.strerror)
                return
            self._bills.recorded([bill_id for bill_id, _ in batch])

    async def _ask(self, desk: Desk) -> None:
        while True:
            acknowledged = self._bills.to_acknowledge(desk)
            call = Collection(self._bills.gateway, acknowledged).encode()
            try:
                async with self._asking, asyncio.timeout(ASK_TIMEOUT_S):
                    answer = await self._upstream.post(desk.replica, BILLS_PATH, call, "")
                    try:
                        body = await answer.rest()
                    finally:
                        answer.close()
            except (ReplicaGoneError, ReplicaBrokeError, EngineTimeoutError, TimeoutError):
                self._failed(desk)
                return
            if answer.status != 200:
                self._failed(desk)
                return
            bills = parse_bills(body)
            self._bills.collected(desk, acknowledged, bills)
            if len(bills) < MAX_COLLECTED:
                return

    def _failed(self, desk: Desk) -> None:
        desk.failures += 1
        is_listed = desk.replica.id in self._listed
        if desk.failures >= (MAX_FAILURES_LISTED if is_listed else MAX_FAILURES):
            self._bills.forget(desk.replica.id)

    def _look(self) -> None:
        """Note new replicas, and forget those that are gone."""
        current = self._directory()
        if current is self._seen:
            return
        self._seen = current
        listed = {
            replica.id: replica
            for model in current.models.values()
            for replica in (*model.replicas, *model.prefill)
        }
        for replica_id in self._listed.keys() - listed.keys():
            # What it still does is cut or finished soon: it waits a little for being asked.
            self._bills.open_desk(self._listed[replica_id]).is_leaving = True
        self._listed = listed
