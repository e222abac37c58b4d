"""Requests that were the cause of failures, by hash: for a while they are not sent again. Pure.

A tenant's requests are looked up among that tenant's only, and each tenant has a bounded number, so that
nobody's requests are taken for another's and nobody fills the table.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from serving.config.admission import QuarantineConfig
from serving.records import record


@record
class Suspect:
    """A request by all that an engine sees of it; its body is hashed only where there is one to compare."""

    tenant: str
    model_id: str
    path: str
    body: bytes


# Model, path, length of the body.
_Place = tuple[str, str, int]


class Quarantine:
    """The table of one gateway. Times are seconds of the caller's clock."""

    def __init__(self, config: QuarantineConfig) -> None:
        self._config = config
        # By tenant: where, and the hash; the oldest first, all kept equally long.
        self._tenants: dict[str, OrderedDict[tuple[_Place, bytes], float]] = {}

    def __len__(self) -> int:
        return sum(len(held) for held in self._tenants.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._tenants

    def add(self, suspect: Suspect, now: float) -> None:
        """Hold it from now on."""
        if not self._config.hold_s:
            return
        held = self._tenants.setdefault(suspect.tenant, OrderedDict())
        key = (_place(suspect), _digest(suspect.body))
        held.pop(key, None)
        held[key] = now + self._config.hold_s
        if len(held) > self._config.max_per_tenant:
            held.popitem(last=False)

    def left_s(self, suspect: Suspect, now: float) -> float:
        """How long it is held yet; 0: it may be sent."""
        held = self._tenants.get(suspect.tenant)
        if held is None:
            return 0.0
        while held and next(iter(held.values())) <= now:
            held.popitem(last=False)
        if not held:
            del self._tenants[suspect.tenant]
            return 0.0
        place = _place(suspect)
        if all(known != place for known, _ in held):
            return 0.0
        return max(0.0, held.get((place, _digest(suspect.body)), now) - now)


def _place(suspect: Suspect) -> _Place:
    return suspect.model_id, suspect.path, len(suspect.body)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
