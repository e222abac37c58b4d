"""A request for a model that sleeps is held until it is awake, or until its time is up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.config.admission import AdmissionConfig
from serving.errors import ModelUnavailableError
from serving.gateway.admission import BusyError
from serving.gateway.waking import Waking
from serving.routing.directory import Directory, Model, Replica

ASLEEP = Model("nap", {"min_replicas": 0}, (), "RUNNING")
AWAKE = Model("nap", {"min_replicas": 0}, (Replica("r", "http://x", "t"),), "RUNNING")


class Site:
    """A model that wakes a while after somebody has asked for it."""

    def __init__(self, wakes_after_s: float = 0.0, **config: Any) -> None:
        self.model = ASLEEP
        self.woken: list[str] = []
        self._wakes_after_s = wakes_after_s
        self.waking = Waking(AdmissionConfig(**config), lambda: Directory([self.model]), self._wake)

    def _wake(self, model_id: str) -> None:
        if not self.woken:
            asyncio.get_running_loop().call_later(self._wakes_after_s, self._rise)
        self.woken.append(model_id)

    def _rise(self) -> None:
        self.model = AWAKE


async def test_it_is_held_and_woken() -> None:
    site = Site(wakes_after_s=0.05)
    assert await asyncio.wait_for(site.waking.awake(ASLEEP), 2) is AWAKE
    assert set(site.woken) == {"nap"}
    assert not +site.waking.held


@pytest.mark.parametrize(
    "model", [AWAKE, Model("m", {}, (), "DEPLOYING"), Model("m", {}, (), "DEPLOY_FAILED")]
)
async def test_any_other_model_is_not_waited_for(model: Model) -> None:
    site = Site()
    assert await site.waking.awake(model) is model
    assert site.woken == []


async def test_its_time_is_bounded() -> None:
    site = Site(wakes_after_s=60)
    with pytest.raises(ModelUnavailableError) as raised:
        await asyncio.wait_for(site.waking.awake(ASLEEP, deadline_s=0.1), 2)
    assert raised.value.retry_after_s
    assert not +site.waking.held


async def test_not_more_than_so_many_are_held() -> None:
    site = Site(wakes_after_s=60, max_waiting=1)
    first = asyncio.create_task(site.waking.awake(ASLEEP))
    await asyncio.sleep(0.01)
    with pytest.raises(BusyError):
        await site.waking.awake(ASLEEP)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert not +site.waking.held


async def test_a_stream_hears_of_it_meanwhile() -> None:
    site = Site(wakes_after_s=0.7, keep_alive_s=0.1)
    heard: list[float] = []

    async def on_wait(waited_s: float) -> None:
        heard.append(waited_s)

    await asyncio.wait_for(site.waking.awake(ASLEEP, on_wait=on_wait), 3)
    assert heard
    assert heard == sorted(heard)


async def test_a_model_that_is_removed_is_not_waited_for() -> None:
    site = Site(wakes_after_s=60)
    waiting = asyncio.create_task(site.waking.awake(ASLEEP))
    await asyncio.sleep(0.01)
    site.model = Model("another", {})
    with pytest.raises(ModelUnavailableError):
        await asyncio.wait_for(waiting, 2)
