"""Where the listening router leaves what it learns, for the gateway in the same process.

A module of its own: Ray pickles a custom router's module by value, so that the router's own globals are
copies that nobody else sees. Modules it imports are shared.
"""

from __future__ import annotations

from typing import Any, TypeVar

from serving.discovery.directory import Replica

T = TypeVar("T")
# Of each that listens, the applications of which something has changed since it last looked. Sets, because
# adding to one and taking from it are each one step to other threads.
_LISTENING: list[set[str]] = []


class Table(dict[str, T]):
    """By application. Values are replaced whole: Ray may run the router in another thread."""

    def __setitem__(self, app: str, value: T) -> None:
        super().__setitem__(app, value)
        # After the value: who hears of it must find it.
        _changed(app)

    def forget(self, app: str) -> None:
        """Drop what is known of an application, if anything is."""
        if self.pop(app, None) is not None:
            _changed(app)


def _changed(app: str) -> None:
    for changes in _LISTENING:
        changes.add(app)


def listen() -> set[str]:
    """A set to which every application is added of which something changes; take them out of it."""
    changes: set[str] = set()
    _LISTENING.append(changes)
    return changes


def unlisten(changes: set[str]) -> None:
    """The set is not needed any more."""
    _LISTENING[:] = [one for one in _LISTENING if one is not changes]


SEEN: Table[tuple[Replica, ...]] = Table()
# Those that compute prompts for the others.
PREFILL_SEEN: Table[tuple[Replica, ...]] = Table()
CARDS: Table[dict[str, Any]] = Table()
# What each gateway says of what it has asked models, by its replica's id.
GATEWAYS: dict[str, dict[str, Any]] = {}
# Models that were deployed again: their cards are to be read again.
CHANGED_DEPLOYMENTS: set[str] = set()
