"""What is left out of a request on its way to an engine: members that no engine knows, and null. Pure.

Clients send back what an answer held, and what other services understand. Refusing that breaks them, and
sending it on lets a client speak to the engine past the table of fields. So it is taken out, and named.
"""

from __future__ import annotations

import re
from typing import Any

# Names that look like a field's: they are no content, and can be named to the client who wrote them.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
# Of one object that has fields of its own; looking at each of a million takes time.
MAX_MEMBERS = 1024
# Named of one request; a client that sends more learns of the first ones.
MAX_NAMED = 32
# For all that cannot be named.
OTHERS = "(others)"


def is_identifier(name: str) -> bool:
    """Whether a name may be repeated to the client."""
    return _IDENTIFIER.fullmatch(name) is not None


class Leftovers:
    """What is left out of one body.

    Attributes:
        is_strict: nothing may be, but null.
        is_empty: nothing was.
        taken: lists and objects that were left out; to free a large one takes time.
        named: where, as in `messages[].prefix` or `tools[web_search]`, in the order of the body.
    """

    __slots__ = ("_places", "is_empty", "is_strict", "named", "taken")

    def __init__(self, *, is_strict: bool = False) -> None:
        self.is_strict = is_strict
        self.is_empty = True
        self.named: dict[str, None] = {}
        self.taken: list[Any] = []
        self._places: list[str] = []

    def enter(self, place: str) -> None:
        """A walk goes one level down: `.name`, or `[]`."""
        self._places.append(place)

    def leave(self) -> None:
        """It comes up again."""
        self._places.pop()

    def note(self, name: str) -> None:
        """A member of this name is left out, here."""
        self._note(name, f".{name}")

    def note_element(self, kind: str) -> None:
        """An element of this kind is left out of the list, here."""
        self._note(kind, f"[{kind}]")

    def _note(self, name: str, place: str) -> None:
        self.is_empty = False
        if len(self.named) >= MAX_NAMED or not is_identifier(name):
            self.named.setdefault(OTHERS)
        else:
            self.named.setdefault("".join((*self._places, place)).removeprefix("."))
