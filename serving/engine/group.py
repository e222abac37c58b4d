"""A data-parallel group from inside one of its ranks: when all have finished, all may stop.

The experts of a model are spread over the ranks, so an idle rank still works for the others.
A rank that stopped as soon as its own requests had ended would break their streams.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

# Ray's own data-parallel server keeps the address of rank 0 there, too: a few bytes in the cluster's store.
from ray.experimental.internal_kv import _internal_kv_exists, _internal_kv_put

_POLL_S = 0.2


@dataclass(frozen=True)
class Group:
    """The members of a group; `id` is new each time the group is started."""

    id: str
    rank: int
    size: int

    async def all_finished(self, timeout_s: float) -> bool:
        """Report that this rank has no request left, and wait until all ranks have reported.

        Returns:
            Whether they did so in time.
        """
        await asyncio.to_thread(_internal_kv_put, self._key(self.rank), b"1", overwrite=True)
        until_s = time.monotonic() + timeout_s
        waiting = [rank for rank in range(self.size) if rank != self.rank]
        while waiting:
            done = await asyncio.to_thread(self._finished, waiting)
            waiting = [rank for rank in waiting if rank not in done]
            if waiting and time.monotonic() >= until_s:
                return False
            await asyncio.sleep(_POLL_S if waiting else 0)
        return True

    def _finished(self, ranks: list[int]) -> set[int]:
        return {rank for rank in ranks if _internal_kv_exists(self._key(rank))}

    def _key(self, rank: int) -> bytes:
        return f"comptoir/finished/{self.id}/{rank}".encode()


def this_group() -> Group | None:
    """The group of this process's Serve replica, or None without a group."""
    from ray import serve

    context = serve.get_replica_context().gang_context
    if context is None:
        return None
    return Group(context.gang_id, context.rank, context.world_size)
