"""The table of the listening router's knowledge, for the gateway in the same process.

It is a module of its own because Ray pickles the module of a custom router by value: the router's own globals
are copies that nobody else sees. Modules that it imports are shared.
"""

from __future__ import annotations

from typing import Any, TypeVar

from serving.discovery.directory import Replica
from serving.replica_facts import ModelCard

T = TypeVar("T")
# One set for each listener: the applications that have changed since it last looked. Sets, because adding to
# one and taking from it are each one step to other threads.
_LISTENING: list[set[str]] = []


class Table(dict[str, T]):
    """Values by application. Each is replaced as a whole: Ray may run the router in another thread."""

    def __setitem__(self, app: str, value: T) -> None:
        super().__setitem__(app, value)
        # After the value: who hears of it must find it.
        _changed(app)

    def forget(self, app: str) -> None:
        """Drop the value of an application, if there is one."""
        if self.pop(app, None) is not None:
            _changed(app)


def _changed(app: str) -> None:
    for changes in _LISTENING:
        changes.add(app)


def listen() -> set[str]:
    """A set to which each changed application is added; the listener removes them."""
    changes: set[str] = set()
    _LISTENING.append(changes)
    return changes


def unlisten(changes: set[str]) -> None:
    """Stop adding to a set that `listen` returned."""
    _LISTENING[:] = [known for known in _LISTENING if known is not changes]


# The replicas that answer, and those that compute prompts for them.
SEEN: Table[tuple[Replica, ...]] = Table()
PREFILL_SEEN: Table[tuple[Replica, ...]] = Table()
# What each model is, in the words of its replicas or of its deployment.
CARDS: Table[ModelCard] = Table()
# What each gateway last reported of its requests to models, by its replica's id.
GATEWAYS: dict[str, dict[str, Any]] = {}
# Models that were deployed again and whose cards must be read again.
CHANGED_DEPLOYMENTS: set[str] = set()
