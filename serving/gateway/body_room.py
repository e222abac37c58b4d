"""The memory of the bodies of all open requests, and the part that one key may have. Pure."""

from __future__ import annotations

from collections import Counter

from serving.errors import PLACE_RETRY_S, RateLimitedError


class BodyRoom:
    """Bytes of bodies, from their arrival until their requests are over.

    A key may have as much as is left for all others at that moment: a greedy key leaves the second one half
    of the rest, and so on, so that there is always room for one more.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._total = 0

    def take(self, who: str, size: int, limit: int) -> None:
        """Count more bytes of a body.

        Args:
            who: the key; "" without keys.
            limit: for all bodies together.

        Raises:
            RateLimitedError: there is no room for it.
        """
        left = limit - self._total - size
        if left < 0 or (who and self._held[who] + size > left):
            raise RateLimitedError(
                "the open requests hold too much text, most of it yours; try again later"
                if who and self._held[who] * 2 > self._total
                else "the open requests hold too much text; try again later",
                retry_after_s=PLACE_RETRY_S,
            )
        self._held[who] += size
        self._total += size

    def give_back(self, who: str, size: int) -> None:
        """Free the bytes of a request that is over."""
        self._total -= size
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]


class BodyShare:
    """The bytes of one request; `give_back` them when it is over, however it ended."""

    __slots__ = ("_room", "_size", "_who")

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._who = ""
        self._size = 0

    def take(self, who: str, size: int, limit: int) -> None:
        """`BodyRoom.take`, always for the same key."""
        self._room.take(who, size, limit)
        self._who = who
        self._size += size

    def give_back(self) -> None:
        """It is over."""
        if self._size:
            self._room.give_back(self._who, self._size)
            self._size = 0
