"""The quarantine: requests that caused failures, by hash, which are not sent again for a while. Pure.

A request is looked up among those of its tenant, and each tenant has a bounded number of them: no request is
taken for another tenant's, and no tenant fills the table.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from serving.config.admission import QuarantineConfig
from serving.records import record


@record
class Suspect:
    """A request as an engine sees it; its body is hashed only when there is another to compare with."""

    tenant: str
    model_id: str
    path: str
    body: bytes


# Model, path and length of the body.
_Place = tuple[str, str, int]


class Quarantine:
    """The table of one gateway. Times are seconds of the caller's clock."""

    def __init__(self, config: QuarantineConfig) -> None:
        self._config = config
        # By tenant: the place and the hash of each request, and when it is released; the oldest first.
        self._tenants: dict[str, OrderedDict[tuple[_Place, bytes], float]] = {}

    def __len__(self) -> int:
        return sum(len(held) for held in self._tenants.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._tenants

    def add(self, suspect: Suspect, now: float) -> None:
        """Hold a request back from now on."""
        if not self._config.hold_s:
            return
        held = self._tenants.setdefault(suspect.tenant, OrderedDict())
        key = (_place(suspect), _digest(suspect.body))
        held.pop(key, None)
        held[key] = now + self._config.hold_s
        if len(held) > self._config.max_per_tenant:
            held.popitem(last=False)

    def left_s(self, suspect: Suspect, now: float) -> float:
        """Seconds for which a request is still held; 0: it may be sent."""
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
