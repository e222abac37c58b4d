"""Request ids are random, of one length, and never the same."""

from __future__ import annotations

import string

from serving.gateway.request_ids import BATCH, RequestIds


def test_no_two_ids_are_the_same() -> None:
    ids = RequestIds()
    found = [ids.next() for _ in range(3 * BATCH + 1)]
    assert len(set(found)) == len(found)
    assert all(len(one) == 32 and set(one) <= set(string.hexdigits) for one in found)


def test_the_kernel_is_asked_once_for_many() -> None:
    asked: list[int] = []

    def draw(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    ids = RequestIds(draw)
    for _ in range(BATCH + 1):
        ids.next()
    assert asked == [16 * BATCH] * 2
