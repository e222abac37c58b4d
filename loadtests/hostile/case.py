"""A case: a name, what must hold, and the attack."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from loadtests.hostile.target import Target
from loadtests.hostile.wire import BrokenError, Reply, Wire

# Of 16 KiB each: more than any part of a request may have, but for its body.
_ENDLESS_PIECES = 64

Attack = Callable[[Target], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """`attack` raises `BrokenError` when the target does what it must not.

    `is_crowd`: it sends so much that other cases would wait for it; it runs alone.
    """

    group: str
    name: str
    holds: str
    attack: Attack
    is_crowd: bool = False


class Cases:
    """The cases of one group, in the order in which they are written."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.all: list[Case] = []

    def add(self, name: str, holds: str, *, is_crowd: bool = False) -> Callable[[Attack], Attack]:
        """Decorate an attack; `holds` says what must hold, as a sentence without a full stop."""

        def decorate(attack: Attack) -> Attack:
            self.all.append(Case(self.group, name, holds, attack, is_crowd))
            return attack

        return decorate

    def answers(
        self,
        name: str,
        holds: str,
        request: Callable[[Target], bytes],
        statuses: Collection[int],
        *,
        closes: bool = False,
        method: str = "POST",
    ) -> None:
        """A request that must get exactly one answer, with one of these statuses.

        Args:
            closes: afterwards the connection ends; otherwise it must go on or end, but say no more.
        """

        async def attack(target: Target) -> None:
            await one_answer(target, request(target), statuses, closes=closes, method=method)

        self.all.append(Case(self.group, name, holds, attack))


async def one_answer(
    target: Target,
    request: bytes,
    statuses: Collection[int],
    *,
    closes: bool = False,
    method: str = "POST",
) -> Reply:
    """Send a request and see that one answer comes, and nothing after it.

    Raises:
        BrokenError: another status, no answer, or more than one.
    """
    async with await Wire.open(target) as wire:
        await wire.try_send(request)
        reply = await wire.reply(method)
        expect(reply, statuses)
        assert reply is not None  # noqa: S101 - `expect` has seen to it
        await nothing_more(wire, closes=closes)
    return reply


def expect(reply: Reply | None, statuses: Collection[int]) -> None:
    """See that an answer has one of these statuses.

    Raises:
        BrokenError: it has not, or there is none.
    """
    if reply is None:
        raise BrokenError("the connection ended without an answer")
    if reply.status not in statuses:
        raise BrokenError(f"status {reply.status}; right is {_words(statuses)}")
    if not reply.is_whole:
        raise BrokenError(f"the answer with status {reply.status} was cut")


async def endless(target: Target, request: bytes, statuses: Collection[int]) -> None:
    """Send a request and then letters without end: that must be refused, or the connection cut.

    Raises:
        BrokenError: all of it is taken, or it is answered with another status.
    """
    async with await Wire.open(target) as wire:
        await wire.send(request)
        for _ in range(_ENDLESS_PIECES):
            if not await wire.try_send(b"x" * 16_384, 2.0):
                break
        reply = await wire.reply(timeout_s=target.cut_s + 5)
        if reply is not None:
            expect(reply, statuses)


async def nothing_more(wire: Wire, *, closes: bool = False, wait_s: float = 0.3) -> None:
    """See that no second answer comes.

    Raises:
        BrokenError: one does, or the connection stays open although it must not.
    """
    try:
        left = await wire.rest(5.0 if closes else wait_s)
    except BrokenError:
        if closes:
            raise
        left = wire.seen
    if left:
        raise BrokenError(f"{len(left)} more bytes came: {left[:24]!r}")


async def is_well(target: Target) -> None:
    """See that a new client gets an answer.

    Raises:
        BrokenError: it does not.
    """
    async with await Wire.open(target) as wire:
        await wire.send(target.post(target.chat()))
        expect(await wire.reply("POST"), (200,))


def _words(statuses: Collection[int]) -> str:
    return " or ".join(str(status) for status in statuses)
