"""The ways in which a replica's answer can fail, and the receiver of its body."""

from __future__ import annotations

import errno
from typing import Protocol

# What the kernel says when the machine at the other end, or the way to it, has gone.
_UNREACHABLE = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN}
)


class Receiver(Protocol):
    """Takes the pieces of a body as they arrive."""

    def receive(self, data: bytes) -> None:
        """Take more of the body: everything that has arrived."""

    def end(self, error: Exception | None) -> None:
        """Note that the body is complete, or with `error` why it never will be. Called once, last."""


class BrokenError(Exception):
    """The connection ended before the answer did."""


class ClosedError(BrokenError):
    """The other end has closed the connection: its process has ended, or is about to.

    Attributes:
        taken: the other end's kernel has had the whole request. If not, nobody there can have begun it.
    """

    def __init__(self, reason: str, *, taken: bool = True) -> None:
        super().__init__(reason)
        self.taken = taken


class VanishedError(BrokenError):
    """The other machine, or the network to it, is lost: not the request's fault, and nobody closed it."""


class SilentError(Exception):
    """Nothing has arrived within the time limit."""


class UnreadError(Exception):
    """The gateway has not read for too long, because its client does not: not the replica's fault."""


def is_unreachable(error: BaseException | None) -> bool:
    """Whether a machine gives no sign of life, rather than a process on it."""
    return isinstance(error, TimeoutError) or (
        isinstance(error, OSError) and error.errno in _UNREACHABLE
    )
