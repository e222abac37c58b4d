"""Requests for a model that nobody answers for are held, whatever the reason, for a bounded time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serving.admission.deadline import Deadline
from serving.config.admission import AdmissionConfig
from serving.discovery.directory import Directory, Model, Replica
from serving.errors import ModelNotFoundError, ModelUnavailableError
from serving.gateway import holding
from serving.gateway.busy import BusyError
from serving.gateway.holding import Holding, by_turns, cause_of
from serving.gateway.replica_request import RetryState
from serving.replica_facts import ModelCard
from tests.gateway.leaping import now, run, settle

R = Replica("r", "http://x", "t")
ASLEEP = Model("m", ModelCard(min_replicas=0), (), "RUNNING")
CRASHED = Model("m", ModelCard(), (), "UNHEALTHY")
STARTING = Model("m", ModelCard(), (), "DEPLOYING")
THERE = Model("m", ModelCard(), (R,), "RUNNING")
FAILING = Model("m", ModelCard(), (), "UNHEALTHY", fails_to_start=True)


class Site:
    """A model whose replicas come and go; `can_ask` is what the forwarder would say."""

    def __init__(self, model: Model | None, **config: Any) -> None:
        self.model = model
        self.woken: list[str] = []
        self.looks = 0
        self.holding = Holding(
            AdmissionConfig(**config), self.directory, self.woken.append, self.can_ask, clock=now
        )

    def directory(self) -> Directory:
        self.looks += 1
        return Directory([] if self.model is None else [self.model])

    def can_ask(self, model_id: str, tried: RetryState | None, tenant: str) -> bool:
        there = self.model is not None and bool(self.model.replicas)
        return there and (tried is None or R.id not in tried.replicas)

    def hold(
        self, tenant: str = "a", for_s: float = 60.0, on_wait: Any = None, tried: Any = None
    ) -> asyncio.Task[None]:
        deadline = Deadline(now() + for_s)
        return asyncio.create_task(
            self.holding.until({"m": tried or RetryState()}, tenant, deadline, on_wait)
        )


@pytest.mark.parametrize("model", [ASLEEP, CRASHED, STARTING, None])
def test_whatever_the_reason_it_is_held_until_a_replica_is_there(model: Model | None) -> None:
    async def play() -> None:
        site = Site(model)
        held = site.hold()
        await asyncio.sleep(5)
        assert not held.done()
        assert site.holding.held("m") == 1
        site.model, came = THERE, now()
        await held
        assert now() - came <= 0.2
        assert site.holding.held("m") == 0

    run(play())


def test_one_without_replicas_is_woken_and_one_that_has_some_is_not() -> None:
    async def play() -> None:
        for model, woken in ((ASLEEP, {"m"}), (STARTING, {"m"}), (THERE, set())):
            site = Site(model)
            held = site.hold(tried=RetryState(replicas={"r"}))
            await asyncio.sleep(1)
            assert set(site.woken) == woken
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)

    run(play())


def test_a_request_whose_replica_died_waits_for_another_one() -> None:
    async def play() -> None:
        site = Site(THERE)
        held = site.hold(tried=RetryState(replicas={"r"}))
        other = site.hold(tenant="b")
        await other
        await asyncio.sleep(5)
        assert not held.done()
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        assert site.holding.held("m") == 0

    run(play())


def test_its_time_is_bounded_by_its_deadline() -> None:
    async def play() -> None:
        site, began = Site(CRASHED), now()
        with pytest.raises(ModelUnavailableError) as raised:
            await site.hold(for_s=1.0)
        assert now() - began == pytest.approx(1.0, abs=0.01)
        assert raised.value.retry_after_s
        assert not site.holding._lines

    run(play())


def test_waiting_in_vain_ends_at_once() -> None:
    async def play() -> None:
        site, began = Site(FAILING), now()
        with pytest.raises(ModelUnavailableError, match="does not start") as raised:
            await site.hold()
        assert now() == began
        assert raised.value.retry_after_s
        # One that is held when that becomes clear hears of it, too.
        site.model = CRASHED
        held = site.hold()
        await asyncio.sleep(3)
        site.model = FAILING
        with pytest.raises(ModelUnavailableError, match="does not start"):
            await held
        assert now() - began < 4

    run(play())


def test_a_model_that_is_removed_is_waited_for_a_short_while() -> None:
    async def play() -> None:
        site, began = Site(None), now()
        with pytest.raises(ModelNotFoundError):
            await site.hold()
        assert holding.GONE_S <= now() - began < holding.GONE_S + 1

    run(play())


def test_any_of_several_models_will_do() -> None:
    async def play() -> None:
        site = Site(FAILING)
        asked: list[str] = []

        def can_ask(model_id: str, tried: RetryState | None, tenant: str) -> bool:
            asked.append(model_id)
            return model_id == "stand-in" and now() >= 3

        held = Holding(AdmissionConfig(), site.directory, site.woken.append, can_ask, clock=now)
        stand_in = replace(CRASHED, id="stand-in")
        site.directory = lambda: Directory([FAILING, stand_in])  # type: ignore[method-assign]
        held._directory = site.directory
        wanted = {"m": RetryState(), "stand-in": RetryState()}
        await held.until(wanted, "a", Deadline(60.0))
        assert 3 <= now() <= 3.2
        assert set(asked) == {"m", "stand-in"}

    run(play())


def test_not_more_than_so_many_are_held_of_all_and_of_one_tenant() -> None:
    async def play() -> None:
        site = Site(CRASHED, max_waiting=3, max_waiting_per_tenant=2)
        held = [site.hold("a"), site.hold("a")]
        await settle()
        with pytest.raises(BusyError, match="your requests") as raised:
            await site.hold("a")
        assert raised.value.retry_after_s
        held.append(site.hold("b"))
        await settle()
        with pytest.raises(BusyError, match="too many requests"):
            await site.hold("b")
        site.model = THERE
        await asyncio.gather(*held)
        await site.hold("a")

    run(play())


def test_who_holds_most_makes_room_for_who_holds_little() -> None:
    async def play() -> None:
        site = Site(CRASHED, max_waiting=8, max_waiting_per_tenant=4)
        crowd = [site.hold(name) for name in "aaaabbbb"]
        await settle()
        good = [site.hold("c") for _ in range(2)]
        await settle()
        lost = [task for task in crowd if task.done()]
        # The newest of each; what came first keeps its place.
        assert lost == [crowd[3], crowd[7]]
        for task in lost:
            with pytest.raises(BusyError, match="most of them yours") as raised:
                await task
            assert (raised.value.reason, raised.value.failure) == ("held_displaced", "saturated")
        # Nobody has more than the newcomer would have.
        with pytest.raises(BusyError, match="too many requests"):
            await site.hold("c")
        assert site.holding.held("m") == 8
        site.model = THERE
        await asyncio.gather(*good, *(task for task in crowd if task not in lost))
        assert not site.holding._lines

    run(play())


def test_they_are_let_go_by_turns_of_their_tenants() -> None:
    async def play() -> None:
        site = Site(CRASHED)
        order: list[str] = []

        async def ask(tenant: str) -> None:
            await site.holding.until({"m": RetryState()}, tenant, Deadline(now() + 60))
            order.append(tenant)

        asking = [asyncio.create_task(ask(tenant)) for tenant in "aaaabc"]
        await settle()
        site.model = THERE
        await asyncio.gather(*asking)
        assert "".join(order) == "abcaaa"

    run(play())
    assert by_turns([]) == []


def test_a_stream_hears_of_it_meanwhile() -> None:
    async def play() -> None:
        site = Site(CRASHED, keep_alive_s=2)
        heard: list[float] = []

        async def on_wait(waited_s: float) -> None:
            heard.append(waited_s)

        held = site.hold(on_wait=on_wait)
        await asyncio.sleep(7)
        site.model = THERE
        await held
        assert heard == pytest.approx([2, 4, 6], abs=0.05)

    run(play())


def test_a_look_that_fails_is_not_the_last_one() -> None:
    async def play() -> None:
        site, seen = Site(CRASHED), list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        held = site.hold()
        await settle()
        whole = site.can_ask

        def broken(*_: Any) -> bool:
            site.holding._can_ask = whole
            raise RuntimeError

        site.holding._can_ask = broken
        await asyncio.sleep(0.15)
        assert len(seen) == 1
        site.model = THERE
        await held

    run(play())


def test_a_thousand_that_wait_cost_one_look() -> None:
    async def play() -> None:
        site = Site(CRASHED, max_waiting=2000, max_waiting_per_tenant=2000)
        held = [site.hold() for _ in range(1000)]
        await settle()
        site.looks = 0
        await asyncio.sleep(1)
        assert site.looks < 100
        site.model = THERE
        await asyncio.gather(*held)

    run(play())


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (ASLEEP, "asleep"),
        (STARTING, "starting"),
        (CRASHED, "crashed"),
        (THERE, "unreachable"),
        (None, "gone"),
    ],
)
def test_the_reason_has_a_name(model: Model | None, cause: str) -> None:
    assert cause_of(model) == cause
