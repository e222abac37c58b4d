"""A crowd that comes at once is served over several turns of the loop, in order, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import gzip

import orjson
import pytest

from serving.gateway.pace import Pace
from tests.gateway.conftest import SiteFactory


class Work:
    """A millisecond each; counts what is done between two looks."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.done: list[int] = []
        self.pace = Pace(0.004, lambda: self.now_s)

    async def do(self, number: int) -> None:
        def work() -> None:
            self.now_s += 0.001
            self.done.append(number)

        await self.pace.run(work)

    async def most_at_once(self, running: list[asyncio.Task[None]]) -> int:
        most = before = 0
        while not all(task.done() for task in running):
            await asyncio.sleep(0)
            most, before = max(most, len(self.done) - before), len(self.done)
        return most


async def test_a_crowd_is_served_in_order_and_over_many_turns_of_the_loop() -> None:
    work = Work()
    for _ in range(2):
        running = [asyncio.create_task(work.do(number)) for number in range(200)]
        # A turn that ends and the one that begins may meet in one round.
        assert await work.most_at_once(running) <= 10
        assert work.done == list(range(200))
        work.done.clear()


async def test_who_leaves_while_waiting_takes_nobodys_turn() -> None:
    work = Work()
    running = [asyncio.create_task(work.do(number)) for number in range(50)]
    await asyncio.sleep(0)
    for task in running[20:40]:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert sorted(work.done) == [*range(20), *range(40, 50)]


async def test_an_error_is_its_own_works() -> None:
    work = Work()

    def fail() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await work.pace.run(fail)
    await asyncio.wait_for(work.do(1), 1)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_crowd_gets_its_answers(make_site: SiteFactory, packed: bool) -> None:
    site = await make_site()
    body = orjson.dumps({"model": "fake", "messages": [{"role": "user", "content": " " * 20_000}]})
    headers = {"content-type": "application/json"}
    if packed:
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    answers = await asyncio.gather(
        *(
            site.client.post("/v1/chat/completions", content=body, headers=headers)
            for _ in range(60)
        ),
        *(site.client.get("/ready") for _ in range(30)),
    )
    assert {answer.status_code for answer in answers} == {200}
