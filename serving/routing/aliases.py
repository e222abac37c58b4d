"""Aliases: the arm of an alias that a request belongs to. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from serving.config.routing import Arm


def draw_arm(alias: str, arms: Sequence[Arm], sticky_key: str) -> Arm:
    """The arm of an alias that a key belongs to; an arm's share of the keys is that of its weight.

    Weighted rendezvous hashing (the logarithmic method): every arm draws -ln(u) / weight, u from a hash of
    alias, arm and key, and the least wins. When one arm's weight changes, comes or goes, keys move only to it
    or from it, no more than its share changed; a hash laid over intervals would shift all later arms.
    """

    def drawn(arm: Arm) -> float:
        text = "\0".join((alias, arm.model, sticky_key)).encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return -math.log((number + 1) / 2**64) / arm.weight

    return min(arms, key=drawn)


def sticky_key(caller: str, session: str | None = None, user: str | None = None) -> str:
    """The key that decides on an alias's arm: of the session, else of the user, else of the API key.

    The caller's name is part of it, so that two tenants' session ids have nothing to do with each other.
    """
    kind, value = ("session", session) if session else ("user", user) if user else ("key", "")
    return "\0".join((kind, caller, value or ""))
