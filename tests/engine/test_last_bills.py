"""A replica that stops gives gateways the time to collect its last bills, and no more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.engine import metering, replica
from serving.engine.metering import Meter
from serving.engine.replica import ModelReplica


def stopping(*payers: str) -> Any:
    """A replica about to end, with a bill for each of these."""
    one: Any = ModelReplica.__new__(ModelReplica)
    one._meter = Meter("m")
    for payer in payers:
        account = one._meter.open("r", payer, "/x")
        account.sequences = 1
        one._meter.over(account, "aborted")
    return one


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "BILLS_LOOK_S", 0.01)
    monkeypatch.setattr(metering, "LAST_LEASE_S", 0.0)


async def test_it_waits_until_any_gateway_has_acknowledged_them() -> None:
    one = stopping("g key")
    waiting = asyncio.create_task(one._collected())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    bills = one._meter.collect("another")
    await asyncio.sleep(0.02)
    assert not waiting.done(), "they are not acknowledged"
    one._meter.collect("another", [bill.id for bill in bills])
    await asyncio.wait_for(waiting, timeout=10)


async def test_it_waits_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "BILLS_WAIT_S", 0.05)
    one = stopping("g key")
    await one._collected()
    assert one._meter.stats()["kept_bills"] == 1


async def test_it_does_not_wait_where_nobody_collects() -> None:
    for one in (stopping(), stopping("")):
        waiting = asyncio.create_task(one._collected())
        await asyncio.sleep(0)
        assert waiting.done()
