"""Admission: what is free costs nothing, what waits leaves no trace, errors say when to come back."""

from __future__ import annotations

import asyncio
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from serving.config.admission import AdmissionConfig, BreakerConfig, QuarantineConfig, RetryConfig
from serving.config.base import validated
from serving.errors import ConfigError, EngineFailedError
from serving.gateway.admission import Admission
from serving.gateway.busy import _REFUSALS, BusyError
from serving.gateway.model_queue import Slot
from serving.replica_protocol import Usage
from tests.gateway.leaping import Gate, now, run, settle

# ---- free --------------------------------------------------------------------------------------------


def test_a_free_slot_is_given_without_waiting_for_anything() -> None:
    gate = Gate(2)
    gate.admission = Admission(AdmissionConfig(), lambda: gate.directory)
    asked = gate.ask()
    # It ends at once, and there is not even an event loop.
    with pytest.raises(StopIteration) as ended:
        asked.send(None)
    slot: Slot = ended.value.value
    assert slot.waited_s == 0
    assert gate.seen.open == 1
    slot.release()
    slot.release()
    assert gate.seen.open == 0


def test_a_slot_is_released_however_its_request_ends() -> None:
    async def main() -> None:
        gate = Gate(1)
        with pytest.raises(EngineFailedError), await gate.ask():
            raise EngineFailedError("no")
        assert gate.seen.open == 0
        (await gate.ask()).release()

    run(main())


def test_gateways_share_the_slots() -> None:
    async def main() -> None:
        gate = Gate(4, gateways=2)
        await gate.ask()
        await gate.ask()
        third = gate.asking()
        await settle()
        assert not third.done()
        assert gate.seen.slots == 2
        third.cancel()

    run(main())


def test_without_replicas_nobody_is_held_back() -> None:
    async def main() -> None:
        gate = Gate(1)
        gate.replicas()
        for _ in range(3):
            await gate.ask()
        assert (gate.seen.slots, gate.seen.open) == (0, 3)

    run(main())


# ---- waiting -----------------------------------------------------------------------------------------


def test_a_request_waits_until_a_slot_is_released() -> None:
    async def main() -> None:
        gate = Gate(1)
        first = await gate.ask()
        second = gate.asking()
        await asyncio.sleep(3)
        assert not second.done()
        assert gate.admission.queued("m") == 1
        assert gate.seen.queue.oldest_wait_s["standard"] == pytest.approx(3)
        first.release()
        slot = await second
        assert slot.waited_s == pytest.approx(3)
        assert (gate.seen.open, gate.admission.queued("m")) == (1, 0)
        assert gate.seen.waits == {"standard": 1}
        assert gate.seen.wait_s_total["standard"] == pytest.approx(3)
        assert gate.admission.queued("unknown") == 0

    run(main())


def test_the_queue_is_fair_and_has_classes() -> None:
    async def main() -> None:
        gate = Gate(1)
        slot = await gate.ask()
        served: list[str] = []

        async def ask(name: str, **fields: Any) -> None:
            with await gate.ask(name, **fields):
                served.append(name)
                await asyncio.sleep(0.1)

        tasks = [asyncio.create_task(ask("a")) for _ in range(3)]
        await settle()
        tasks.append(asyncio.create_task(ask("b")))
        tasks.append(asyncio.create_task(ask("later", priority="batch")))
        tasks.append(asyncio.create_task(ask("first", priority="interactive")))
        await settle()
        slot.release()
        await asyncio.gather(*tasks)
        assert served == ["first", "a", "b", "a", "a", "later"]

    run(main())


def test_the_engines_usage_is_charged() -> None:
    async def main() -> None:
        gate = Gate(1)
        slot = await gate.ask("a")
        waiting = [gate.asking("a"), gate.asking("a"), gate.asking("b")]
        await settle()
        # What "a" has was estimated at 300; it costs ten times as much.
        slot.usage = Usage(prompt_tokens=1000, cached_tokens=0, output_tokens=1000)
        slot.release()
        await settle()
        assert [task.done() for task in waiting] == [False, False, True]
        for task in waiting:
            task.cancel()

    run(main())


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def main() -> None:
        gate = Gate(1, max_waiting=2, max_waiting_per_tenant=1)
        await gate.ask()
        first = gate.asking("a")
        await settle()
        with pytest.raises(BusyError) as raised:
            await gate.ask("a")
        assert (raised.value.reason, raised.value.failure) == ("tenant_full", "saturated")
        second = gate.asking("b")
        await settle()
        with pytest.raises(BusyError) as raised:
            await gate.ask("c")
        error = raised.value
        assert (error.status, error.reason, error.param) == (429, "full", "model")
        assert error.retry_after_s == 5.0
        assert gate.seen.refused == {"tenant_full": 1, "full": 1}
        first.cancel()
        second.cancel()

    run(main())


def test_whoever_has_to_make_room_is_told() -> None:
    async def main() -> None:
        gate = Gate(1, max_waiting=2)
        await gate.ask()
        crowd = [gate.asking("flood") for _ in range(2)]
        await settle()
        calm = gate.asking("calm")
        await settle()
        assert [task.done() for task in crowd] == [False, True]
        error = crowd[1].exception()
        assert isinstance(error, BusyError)
        assert error.reason == "displaced"
        assert error.retry_after_s is not None
        assert not calm.done()
        for task in (crowd[0], calm):
            task.cancel()

    run(main())


@pytest.mark.parametrize(("deadline_s", "waits_s"), [(2.5, 2.5), (None, 7.0)])
def test_over_its_deadline_a_request_is_refused(deadline_s: float | None, waits_s: float) -> None:
    async def main() -> None:
        gate = Gate(1, max_wait_s=7)
        await gate.ask()
        with pytest.raises(BusyError) as raised:
            await gate.ask(deadline_s=deadline_s)
        assert now() == pytest.approx(waits_s, abs=0.01)
        assert (raised.value.reason, raised.value.failure) == ("expired", "deadline")
        assert gate.admission.queued("m") == 0
        assert gate.seen.refused == {"expired": 1}

    run(main())


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    async def main() -> None:
        gate = Gate(1)

        async def use() -> None:
            with await gate.ask():
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(use()) for _ in range(20)]
        await asyncio.sleep(10.5)
        before = now()
        with pytest.raises(BusyError) as raised:
            await gate.ask(deadline_s=4)
        assert now() == before
        assert raised.value.reason == "deadline"
        # One a second, nine before it.
        assert raised.value.retry_after_s == pytest.approx(10, rel=0.2)
        await asyncio.gather(*tasks)

    run(main())


def test_a_deadline_too_short_to_wait_at_all_ends() -> None:
    async def main() -> None:
        gate = Gate(1)
        await gate.ask()
        with pytest.raises(BusyError):
            await gate.ask(deadline_s=1e-9)

    run(main())


# ---- a flood -----------------------------------------------------------------------------------------


def test_a_flood_of_one_key_costs_another_little() -> None:
    """The bar, through admission: p99 to the first token within 1.5 times its value alone."""

    async def p99_of_a(loads: dict[str, float]) -> float:
        gate, draw = Gate(32, reserve_share=0.1, max_waiting=200), random.Random(5)
        times: list[float] = []

        async def use(name: str) -> None:
            began, tokens = now(), draw.randint(20, 200)
            try:
                slot = await gate.ask(name)
            except BusyError:
                assert name == "b"
                return
            with slot:
                await asyncio.sleep(0.2)
                if name == "a":
                    times.append(now() - began)
                await asyncio.sleep(tokens * 0.01)
                slot.usage = Usage(50, 0, tokens)

        async def send(name: str, per_s: float) -> None:
            until, arrivals, tasks = now() + 60, random.Random(name), []
            while now() < until:
                await asyncio.sleep(arrivals.expovariate(per_s))
                tasks.append(asyncio.create_task(use(name)))
            await asyncio.gather(*tasks)

        await asyncio.gather(*(send(name, per_s) for name, per_s in loads.items()))
        return sorted(times)[math.ceil(0.99 * len(times)) - 1]

    async def main() -> None:
        alone = await p99_of_a({"a": 5.0})
        assert await p99_of_a({"a": 5.0, "b": 50.0}) <= 1.5 * alone

    run(main())


# ---- configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"max_open_per_replica": 0}, "admission: max_open_per_replica: "),
        ({"max_open_per_replica": 4}, "min_open_per_replica (64) is larger"),
        ({"reserve_share": 0.6}, "admission: reserve_share: "),
        ({"aging_dispatches": 1}, "admission: aging_dispatches: "),
        ({"max_wait_s": -1}, "admission: max_wait_s: "),
        ({"input_weight": 0, "output_weight": 0}, "both 0"),
        ({"max_wait": 5}, "admission: max_wait: unknown key"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(keys: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated(AdmissionConfig, keys, "admission")
    assert complaint in raised.value.message


# ---- the document ------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "docs" / "admission.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("admission", AdmissionConfig()),
        ("breaker", BreakerConfig()),
        ("retries", RetryConfig()),
        ("quarantine", QuarantineConfig()),
    ],
)
def test_every_key_is_documented_with_its_default(name: str, config: BaseModel) -> None:
    section = DOCUMENT.split(f"`{name}` of the gateway.\n")[1].split("of the gateway.")[0]
    rows = re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", section, re.MULTILINE)
    values = config.model_dump()
    assert dict(rows) == {
        key: "none" if values[key] is None else str(values[key]) for key in values
    }


def test_every_reason_of_a_refusal_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(saturated|deadline)` \|", DOCUMENT, re.MULTILINE)
    assert dict(rows) == {reason: failure for reason, (_, failure) in _REFUSALS.items()}
