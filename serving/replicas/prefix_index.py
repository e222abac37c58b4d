"""The prefix index: how much of a prompt each replica has in its cache, by what was sent there before. Pure.

An engine keeps what it used last, and drops the ends of prompts before their beginnings (vLLM's prefix cache,
https://docs.vllm.ai/en/latest/design/prefix_caching.html); the index does the same with hashes. It learns
where an engine's memory ends when one of its prompts turns out to be gone: whatever the replica used before
that is gone too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable

from serving.records import record
from serving.replicas.prompt_prefix import PromptPrefix


@record
class Match:
    """The longest beginning of a prompt that any replica has: its length, and the replicas that have it."""

    bytes: int = 0
    holders: tuple[str, ...] = ()


NO_MATCH = Match()


class PrefixIndex:
    """Hashes of the beginnings of prompts that each replica used last, in bounded memory.

    Replicas have equal shares of `max_entries`. An entry costs about 220 bytes.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        # By replica: the tick at which each hash was last used, in the order of use.
        self._held: dict[str, OrderedDict[int, int]] = {}
        self._tick = 0

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def longest(self, prompt: PromptPrefix, replica_ids: Iterable[str]) -> Match:
        """Those of these replicas that have the most of the prompt."""
        held = [(id_, self._held[id_]) for id_ in replica_ids if id_ in self._held]
        if not held:
            return NO_MATCH
        for hash_, end in zip(reversed(prompt.hashes), reversed(prompt.ends), strict=True):
            holders = tuple([id_ for id_, hashes in held if hash_ in hashes])
            if holders:
                return Match(end, holders)
        return NO_MATCH

    def known(self, prompt: PromptPrefix, replica_id: str) -> tuple[int, int]:
        """Bytes of the prompt that a replica has, and the tick at which it last used them."""
        hashes = self._held.get(replica_id)
        if hashes:
            for hash_, end in zip(reversed(prompt.hashes), reversed(prompt.ends), strict=True):
                tick = hashes.get(hash_)
                if tick is not None:
                    return end, tick
        return 0, 0

    def add(self, prompt: PromptPrefix, replica_id: str) -> None:
        """Add a prompt that a replica gets, and will have all of."""
        if not prompt.hashes:
            return
        hashes = self._held.get(replica_id)
        if hashes is None:
            hashes = self._held[replica_id] = OrderedDict()
            for others in self._held.values():
                self._shorten(others)
        self._tick += 1
        # The longest one first, which is the first to be dropped, as in the engine.
        for hash_ in reversed(prompt.hashes):
            hashes[hash_] = self._tick
            hashes.move_to_end(hash_)
        self._shorten(hashes)

    def forget_until(self, replica_id: str, tick: int) -> None:
        """Drop all that a replica has not used since this tick."""
        hashes = self._held.get(replica_id)
        while hashes and next(iter(hashes.values())) <= tick:
            hashes.popitem(last=False)

    def keep(self, live: Collection[str]) -> None:
        """Drop replicas that are not among these."""
        for id_ in self._held.keys() - set(live):
            del self._held[id_]

    def _shorten(self, hashes: OrderedDict[int, int]) -> None:
        share = self._max_entries // len(self._held)
        while len(hashes) > share:
            hashes.popitem(last=False)
