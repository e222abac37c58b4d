"""Hedged requests: when the first replica is slow to begin, ask a second; the faster one wins.

Off unless it is configured: the engines work for both. Dean and Barroso, "The Tail at Scale", CACM 2013.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def first_of(
    ask: Callable[[], Awaitable[T]],
    after_s: float,
    discard: Callable[[T], None],
    may_ask: Callable[[], bool] = lambda: True,
) -> T:
    """The result of the first of one or two calls of `ask` that succeeds.

    Args:
        ask: asks another replica each time.
        after_s: how long the first has before the second begins; if it fails earlier, that is the result.
        discard: gets a late result.
        may_ask: whether there may be a second one; asked when it is time for it.

    Raises:
        Exception: the first's, when neither succeeds.
    """
    first = asyncio.ensure_future(ask())
    tasks = {first}
    try:
        await asyncio.wait(tasks, timeout=after_s)
        if not first.done() and may_ask():
            tasks.add(asyncio.ensure_future(ask()))
        while not any(task.done() and task.exception() is None for task in tasks):
            if all(task.done() for task in tasks):
                break
            await asyncio.wait(
                [task for task in tasks if not task.done()],
                return_when=asyncio.FIRST_COMPLETED,
            )
        winner = next((t for t in tasks if t.done() and t.exception() is None), first)
        tasks.discard(winner)
        return winner.result()
    finally:
        for task in tasks:
            task.add_done_callback(lambda late: _discard(late, discard))
            task.cancel()


def _discard(late: asyncio.Future[T], discard: Callable[[T], None]) -> None:
    if not late.cancelled() and late.exception() is None:
        discard(late.result())
