"""Requests that leave, replicas that come and go, calls while somebody waits: no slot is lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from serving.discovery.directory import Directory, Model, Replica
from serving.replica_facts import ModelCard, ReplicaStats
from serving.tenancy.keys import Caller
from tests.gateway.leaping import SMALL, Gate, now, run, settle

# ---- leaving -----------------------------------------------------------------------------------------


def test_a_cancelled_waiter_leaves_no_trace() -> None:
    async def main() -> None:
        gate = Gate(1)
        slot = await gate.ask()
        gone, waiting = gate.asking("b"), gate.asking("c")
        await settle()
        gone.cancel()
        await settle()
        assert gate.admission.queued("m") == 1
        slot.release()
        (await waiting).release()
        assert (gate.seen.open, gate.seen.admitted) == (0, 2)
        assert not gate.admission._queues["m"].waiters

    run(main())


def test_a_slot_given_at_the_moment_of_a_cancel_is_passed_on() -> None:
    async def main() -> None:
        gate = Gate(1)
        slot = await gate.ask()
        gone, waiting = gate.asking("b"), gate.asking("c")
        await settle()
        slot.release()
        gone.cancel()
        await settle()
        assert gone.cancelled()
        # At once, not when the queue next looks.
        assert waiting.done()
        (await waiting).release()
        assert (gate.seen.open, gate.seen.admitted) == (0, 2)

    run(main())


def test_a_waiter_cancelled_first_does_not_swallow_a_slot() -> None:
    async def main() -> None:
        gate = Gate(1)
        slot = await gate.ask()
        gone, waiting = gate.asking("b"), gate.asking("c")
        await settle()
        gone.cancel()
        slot.release()
        await settle()
        assert gone.cancelled()
        # At once, not when the queue next looks.
        assert waiting.done()
        (await waiting).release()
        assert gate.seen.open == 0

    run(main())


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_cancelled_whenever_no_slot_is_lost(seed: int) -> None:
    async def main() -> None:
        draw = random.Random(seed)
        gate = Gate(3, max_waiting=20)
        (await gate.ask()).release()

        async def use() -> None:
            with await gate.ask(draw.choice("abc"), draw.uniform(0.1, 3)):
                await asyncio.sleep(draw.choice([0, 0, 0.1, 0.5]))

        tasks: list[asyncio.Task[None]] = []
        for _ in range(400):
            tasks.append(asyncio.create_task(use()))
            if draw.random() < 0.5:
                draw.choice(tasks).cancel()
            await asyncio.sleep(draw.choice([0, 0, 0, 0.1]))
            assert gate.seen.open <= 3
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.seen.open, gate.admission.queued("m")) == (0, 0)
        assert not gate.admission._queues["m"].waiters
        for _ in range(3):
            await gate.ask()

    run(main())


# ---- replicas that come and go -------------------------------------------------------------------------


def test_who_waits_goes_on_when_a_replica_is_added() -> None:
    async def main() -> None:
        gate = Gate(4)
        for _ in range(4):
            await gate.ask()
        waiting = gate.asking()
        await asyncio.sleep(1)
        gate.replicas(*(Replica(name, f"http://{name}", "token") for name in "rs"))
        await asyncio.sleep(1)
        assert waiting.done()
        assert gate.seen.slots > 4

    run(main())


def test_reports_of_many_replicas_do_not_make_the_slots_grow_faster() -> None:
    async def main() -> None:
        gate = Gate(100, max_waiting_per_replica=2)
        busy = ReplicaStats(running=2.0, waiting=2.0)
        gate.replicas(Replica("r", "http://r", "token", busy))
        for _ in range(4):
            await gate.ask()
        waiting = [gate.asking() for _ in range(90)]
        await settle()
        for _ in range(20):
            # The engine has nothing waiting any more, and says so often.
            gate.replicas(Replica("r", "http://r", "token"))
            waiting.append(gate.asking())
            await settle()
            await asyncio.sleep(0.04)
        assert gate.seen.slots == 6
        for task in waiting:
            task.cancel()

    run(main())


@pytest.mark.parametrize("is_removed", [True, False])
def test_who_waits_for_a_model_that_is_gone_is_let_go(is_removed: bool) -> None:
    async def main() -> None:
        gate = Gate(1)
        await gate.ask()
        waiting = [gate.asking() for _ in range(3)]
        await settle()
        gate.replicas()
        if is_removed:
            gate.directory = Directory()
        # The forwarder says 503 to each.
        await asyncio.sleep(1)
        assert all(task.done() for task in waiting)

    run(main())


def test_an_engine_with_requests_waiting_inside_gets_fewer() -> None:
    async def main() -> None:
        gate = Gate(8, max_waiting_per_replica=2)
        for _ in range(4):
            await gate.ask()
        busy = ReplicaStats(running=2.0, waiting=2.0)
        gate.replicas(Replica("r", "http://r", "token", busy))
        waiting = gate.asking()
        await settle()
        assert not waiting.done()
        assert gate.seen.slots == 4
        waiting.cancel()

    run(main())


def test_queues_of_models_that_are_gone_are_forgotten() -> None:
    async def main() -> None:
        gate = Gate(1)
        slot = await gate.ask()
        old = gate.directory.models["m"]
        gate.directory = Directory([Model("n", ModelCard(), old.replicas)])
        caller = Caller("a", frozenset())
        await gate.admission.acquire(gate.directory.models["n"], caller, SMALL)
        assert {one.model_id for one in gate.admission.snapshots()} == {"m", "n"}
        slot.release()
        gate.directory = Directory([Model("o", ModelCard(), old.replicas)])
        await gate.admission.acquire(gate.directory.models["o"], caller, SMALL)
        assert {one.model_id for one in gate.admission.snapshots()} == {"n", "o"}

    run(main())


# ---- signs of life -------------------------------------------------------------------------------------


def test_who_waits_long_is_called_now_and_then() -> None:
    async def main() -> None:
        gate = Gate(1, keep_alive_s=10)
        slot = await gate.ask()
        calls: list[tuple[float, float]] = []

        async def on_wait(waited_s: float) -> None:
            calls.append((round(now(), 3), round(waited_s, 3)))

        waiting = gate.asking(on_wait=on_wait)
        await asyncio.sleep(35)
        slot.release()
        await waiting
        assert calls == [(10, 10), (20, 20), (30, 30)]

    run(main())


def test_a_short_wait_calls_nobody() -> None:
    async def main() -> None:
        gate = Gate(1, keep_alive_s=10)
        slot = await gate.ask()

        async def on_wait(waited_s: float) -> None:
            raise AssertionError

        waiting = gate.asking(on_wait=on_wait)
        await asyncio.sleep(9)
        slot.release()
        await waiting

    run(main())


def test_a_call_that_fails_ends_the_waiting() -> None:
    async def main() -> None:
        gate = Gate(1, keep_alive_s=1)
        slot = await gate.ask()

        async def on_wait(waited_s: float) -> None:
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await gate.ask(on_wait=on_wait)
        assert gate.admission.queued("m") == 0
        slot.release()
        await gate.ask()

    run(main())


def test_a_slot_given_during_a_call_is_kept() -> None:
    async def main() -> None:
        gate = Gate(1, keep_alive_s=1)
        slot = await gate.ask()

        async def on_wait(waited_s: float) -> None:
            slot.release()
            await asyncio.sleep(5)

        await gate.ask(on_wait=on_wait)
        assert now() == pytest.approx(6)
        assert gate.seen.open == 1

    run(main())
