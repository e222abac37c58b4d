"""Long work runs in slices, in turn, and others run between any two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from serving.gateway.turns import Turns


class Clock:
    """A millisecond passes with each step."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def work(clock: Clock, name: str, steps: int, log: list[str]) -> Generator[None, None, str]:
    for _ in range(steps):
        clock.now_s += 0.001
        log.append(name)
        yield
    return name


async def test_the_result_is_what_the_steps_return() -> None:
    clock = Clock()
    assert await Turns(clock=clock).run(work(clock, "a", 5, [])) == "a"


async def test_others_run_between_two_slices() -> None:
    clock, log = Clock(), list[str]()
    running = asyncio.create_task(Turns(0.002, clock).run(work(clock, "a", 6, log)))
    while not running.done():
        await asyncio.sleep(0)
        log.append("-")
    runs = "".join(log).split("-")
    assert max(map(len, runs)) == 2


async def test_two_requests_take_turns_and_never_two_slices_in_one_turn_of_the_loop() -> None:
    clock, log = Clock(), list[str]()
    turns = Turns(0.001, clock)
    running = [asyncio.create_task(turns.run(work(clock, name, 4, log))) for name in "abc"]
    while not all(task.done() for task in running):
        await asyncio.sleep(0)
        log.append("-")
    text = "".join(log)
    assert max(map(len, text.split("-"))) == 1
    assert text.replace("-", "")[:6] == "abcabc"


async def test_an_error_ends_the_work_and_leaves_the_turn_to_others() -> None:
    clock = Clock()
    turns = Turns(clock=clock)

    def fails() -> Generator[None, None, None]:
        yield
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await turns.run(fails())
    assert await turns.run(work(clock, "a", 1, [])) == "a"


async def test_a_request_that_is_cancelled_leaves_the_turn_to_others() -> None:
    clock, log = Clock(), list[str]()
    turns = Turns(0.001, clock)
    leaving = asyncio.create_task(turns.run(work(clock, "a", 10**6, log)))
    staying = asyncio.create_task(turns.run(work(clock, "b", 3, log)))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "b"
    assert leaving.cancelled()
