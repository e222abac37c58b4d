"""The ring of consistent hashing: the same order of replicas for a key at every gateway. Pure.

A replica that comes or goes moves about one n-th of the keys.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator

# Places of each replica on the ring: the more, the more even the shares (1 / sqrt(POINTS) of a share).
POINTS = 128


class Ring:
    """The places of replicas on a circle of 64-bit numbers."""

    def __init__(self) -> None:
        self._points: list[tuple[int, str]] = []
        self._ids: set[str] = set()

    def add(self, replica_id: str) -> None:
        """Give a replica its places, once."""
        if replica_id in self._ids:
            return
        self._ids.add(replica_id)
        for number in range(POINTS):
            insort(self._points, (_place(f"{replica_id}\0{number}"), replica_id))

    def keep(self, live: Collection[str]) -> None:
        """Take away the places of replicas that are not among these."""
        if not self._ids <= set(live):
            self._ids &= set(live)
            self._points = [point for point in self._points if point[1] in self._ids]

    def walk(self, key: str) -> Iterator[str]:
        """Replicas in the order of their places after the key's, each once."""
        start = bisect_left(self._points, (_place(key), ""))
        seen: set[str] = set()
        for index in range(len(self._points)):
            if len(seen) == len(self._ids):
                return
            _, id_ = self._points[(start + index) % len(self._points)]
            if id_ not in seen:
                seen.add(id_)
                yield id_


def _place(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
