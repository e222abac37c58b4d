"""Where the listening router leaves what it learns, for the gateway in the same process.

A module of its own: Ray pickles a custom router's module by value, so that the router's own globals are
copies that nobody else sees. Modules it imports are shared.
"""

from __future__ import annotations

from typing import Any

from serving.routing.directory import Replica

# By application. Values are replaced whole: Ray may run the router in another thread.
SEEN: dict[str, tuple[Replica, ...]] = {}
# Those that compute prompts for the others.
PREFILL_SEEN: dict[str, tuple[Replica, ...]] = {}
CARDS: dict[str, dict[str, Any]] = {}
# What each gateway says of what it has asked models, by its replica's id.
GATEWAYS: dict[str, dict[str, Any]] = {}
