"""A gate whose time passes when nothing else does."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from serving.admission.deadline import Deadline
from serving.config.admission import AdmissionConfig, Priority
from serving.discovery.directory import Directory, Model, Replica
from serving.gateway.admission import Admission, Estimate
from serving.gateway.model_queue import AdmissionSnapshot, Slot
from serving.replica_facts import ModelCard
from serving.tenancy.keys import Caller

SMALL = Estimate(100, 100)


# ---- time that passes when nothing else does -----------------------------------------------------------


class _Leap(selectors.DefaultSelector):
    """Instead of waiting, time leaps to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing would ever happen any more")
        self.now += max(timeout, 0.0)
        return super().select(0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop with a time of its own."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


# ---- helpers -----------------------------------------------------------------------------------------


class Gate:
    """One gateway before a model `m` with so many slots."""

    def __init__(self, slots: int, gateways: int = 1, **keys: Any) -> None:
        self.directory = Directory()
        self.keys = {"reserve_share": 0.0, "min_open_per_replica": 1} | keys
        self.replicas(Replica("r", "http://r", "token"))
        config = AdmissionConfig(**self.keys | {"max_open_per_replica": slots})
        self.admission = Admission(config, lambda: self.directory, gateways, now)

    def replicas(self, *replicas: Replica) -> None:
        self.directory = Directory([Model("m", ModelCard(), replicas)])

    async def ask(
        self,
        name: str = "a",
        deadline_s: float | None = None,
        on_wait: Any = None,
        *,
        priority: Priority = "standard",
        weight: float = 1.0,
    ) -> Slot:
        caller = Caller(name, frozenset({"*"}), priority, weight)
        model = self.directory.models["m"]
        deadline = None if deadline_s is None else Deadline(now() + deadline_s, is_named=True)
        return await self.admission.acquire(model, caller, SMALL, deadline, on_wait)

    def asking(self, *args: Any, **fields: Any) -> asyncio.Task[Slot]:
        return asyncio.create_task(self.ask(*args, **fields))

    @property
    def seen(self) -> AdmissionSnapshot:
        (one,) = self.admission.snapshots()
        return one


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
