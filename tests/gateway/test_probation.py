"""After an engine has died, its requests go on by tenants: one of them takes no other tenant's along."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serving.errors import EngineFailedError
from serving.gateway.probation import MAX_TURN_S, WATCH_S, Probation
from serving.gateway.replica_request import MAX_ACQUITTALS, RetryState
from serving.gateway.upstream import Gone, ReplicaGoneError
from tests.gateway.leaping import now, run, settle
from tests.gateway.test_dispatch_waiting import Site
from tests.gateway.test_forwarding import Answer

DIED = ReplicaGoneError("closed", Gone.DIED)


def test_tenants_go_one_after_the_other_and_each_one_together() -> None:
    async def play() -> None:
        probation, order = Probation(), list[str]()

        async def go(name: str, for_s: float) -> None:
            async with probation.turn("m", name[0], lambda: None):
                order.append(f"{name} at {now():g}")
                await asyncio.sleep(for_s)

        await asyncio.gather(*(go(name, 1.0) for name in ("a1", "b1", "a2", "c1", "b2")))
        assert order == ["a1 at 0", "a2 at 0", "b1 at 1", "b2 at 1", "c1 at 2"]
        assert not probation._gates

    run(play())


def test_one_that_works_without_harm_is_acquitted_and_lets_the_next_go() -> None:
    async def play() -> None:
        probation, acquitted = Probation(), list[float]()

        async def go(name: str) -> float:
            async with probation.turn("m", name, lambda: acquitted.append(now())):
                began = now()
                await asyncio.sleep(100)
            return began

        assert await asyncio.gather(go("a"), go("b")) == [0, WATCH_S]
        assert acquitted == [WATCH_S, 2 * WATCH_S]
        assert not probation._gates

    run(play())


def test_nobody_waits_too_long_and_who_leaves_leaves_no_trace() -> None:
    async def play() -> None:
        probation = Probation()

        async def go(name: str) -> float:
            async with probation.turn("m", name, lambda: None):
                return now()

        async def hold(name: str) -> None:
            async with probation.turn("m", name, lambda: None):
                await asyncio.sleep(WATCH_S)

        names = [f"t{number}" for number in range(9)]
        holders = [asyncio.create_task(hold(name)) for name in names]
        late, left = asyncio.create_task(go("late")), asyncio.create_task(go("left"))
        await settle()
        left.cancel()
        assert await late == MAX_TURN_S
        await asyncio.gather(*holders, left, return_exceptions=True)
        assert not probation._gates

    run(play())


def test_a_request_is_not_acquitted_for_ever() -> None:
    tried = RetryState()
    for _ in range(MAX_ACQUITTALS):
        tried.deaths = 1
        tried.acquit()
        assert tried.deaths == 0
    tried.deaths = 1
    tried.acquit()
    assert tried.deaths == 1


@pytest.mark.parametrize("first", [True, False], ids=["poison goes first", "poison goes last"])
def test_a_request_that_kills_engines_takes_no_other_tenants_along(first: bool) -> None:
    async def play() -> None:
        site = Site("m", retries={"max_attempts": 16})
        site.set_replicas("m", *(f"r{number}" for number in range(6)))
        working: dict[str, list[asyncio.Future[Any]]] = {}

        async def post(replica: Any, path: str, body: bytes, *_: Any) -> Any:
            """An engine that dies half a second after it got the poison, and takes all along."""
            open_ = working.setdefault(replica.id, [])
            answer = asyncio.get_running_loop().create_future()
            open_.append(answer)
            if b"poison" in body:
                await asyncio.sleep(0.5)
                for one in open_:
                    if not one.done():
                        one.set_exception(DIED)
            done, _ = await asyncio.wait((answer,), timeout=1.0)
            open_.remove(answer)
            if done:
                raise DIED
            return Answer()

        site.upstream.post = post  # type: ignore[method-assign]
        site.forwarder._lanes.of("m").policy.choose = together(site)  # type: ignore[method-assign]
        poison = ["bad"] if first else []
        tenants = [*poison, *"abcd", *(["bad"] if not first else [])]
        asking = [
            site.asking(tenant=tenant, user="poison" if tenant == "bad" else tenant)
            for tenant in tenants
        ]
        answers = dict(
            zip(tenants, await asyncio.gather(*asking, return_exceptions=True), strict=True)
        )
        assert isinstance(answers.pop("bad"), EngineFailedError)
        assert all(isinstance(answer, str) for answer in answers.values()), answers
        assert len(site.forwarder.quarantine) == 1

    run(play())


def together(site: Site) -> Any:
    """A policy's choice that sends everything to the same replica, the worst case."""
    chosen = site.forwarder._lanes.of("m").policy.choose

    def choose(request: Any, replicas: Any, in_flight: Any) -> Any:
        return chosen(request, replicas[:1], in_flight)

    return choose
