"""How much memory the bodies of all open requests take, and how much of it may be one key's. Pure."""

from __future__ import annotations

from collections import Counter

from serving.errors import PLACE_RETRY_S, RateLimitedError


class BodyRoom:
    """Bytes of bodies, from their arrival until their requests are over.

    A key may have as much as is left for all others at that moment: a key that takes all it can get leaves
    the second one half of the rest, and so on, so that there is always room for one more.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._total = 0

    def take(self, who: str, size: int, limit: int) -> None:
        """So much more of a body has come.

        Args:
            who: the key; "" where nobody has to share.
            limit: of all together.

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
        """A request is over that has taken so much."""
        self._total -= size
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]


class BodyShare:
    """What one request has taken; `give_back` it when it is over, whatever became of it."""

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
