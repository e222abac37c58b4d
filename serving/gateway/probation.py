"""Requests under which an engine died are sent again by one tenant at a time: so each is blamed for its own.

An engine takes everything along that it was at work on, and one of those may have been the cause. If all
went to the next engine together, that would die of it, too, and all of them would look like the cause. So the
requests of one tenant go, and the next tenant's when these have begun to be answered or have been at work
for a while without harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# What kills an engine does so within this time; who is at work for so long is not the cause.
WATCH_S = 2.0
# How long a request waits for the others at most.
MAX_TURN_S = 10.0


@dataclass(slots=True)
class _Gate:
    """One model: whose turn it is, how many of that tenant's are watched, who waits by tenant, in order."""

    tenant: str
    watched: int = 0
    waiting: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)


class Probation:
    """Whose turn it is at each model; nothing is kept while no engine dies."""

    def __init__(self) -> None:
        self._gates: dict[str, _Gate] = {}

    @asynccontextmanager
    async def turn(
        self, model_id: str, tenant: str, acquit: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Wait for the tenant's turn and hold it, for `WATCH_S` at most; then `acquit` is called."""
        gate = await self._enter(model_id, tenant)
        if gate is None:
            yield
            return
        loop = asyncio.get_running_loop()
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._leave(model_id, gate)

        def release() -> None:
            acquit()
            end()

        timer = loop.call_later(WATCH_S, release)
        try:
            yield
        finally:
            timer.cancel()
            end()

    async def _enter(self, model_id: str, tenant: str) -> _Gate | None:
        """The gate with one more that is watched; None for who has waited too long."""
        gate = self._gates.get(model_id)
        if gate is None:
            gate = self._gates[model_id] = _Gate(tenant)
        if gate.tenant == tenant:
            gate.watched += 1
            return gate
        turn = asyncio.get_running_loop().create_future()
        gate.waiting.setdefault(tenant, []).append(turn)
        try:
            await asyncio.wait((turn,), timeout=MAX_TURN_S)
        except BaseException:
            self._give_up(model_id, gate, tenant, turn)
            raise
        if turn.done():
            return gate
        self._give_up(model_id, gate, tenant, turn)
        return None

    def _give_up(self, model_id: str, gate: _Gate, tenant: str, turn: asyncio.Future[None]) -> None:
        if turn.done():
            # It had just got its turn.
            self._leave(model_id, gate)
            return
        waiting = gate.waiting[tenant]
        waiting.remove(turn)
        if not waiting:
            del gate.waiting[tenant]

    def _leave(self, model_id: str, gate: _Gate) -> None:
        gate.watched -= 1
        if gate.watched:
            return
        if not gate.waiting:
            self._gates.pop(model_id, None)
            return
        gate.tenant = next(iter(gate.waiting))
        turns = gate.waiting.pop(gate.tenant)
        gate.watched = len(turns)
        for turn in turns:
            turn.set_result(None)
