"""The requests that are open in this gateway, to be ended when their key is revoked or the gateway stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serving.errors import ComptoirError
from serving.gateway.body_room import BodyRoom, BodyShare
from serving.tenancy.keys import Caller


class OpenRequest:
    """One open request. Its ender names the error; its task is cancelled, and answers with that error."""

    __slots__ = ("_task", "caller", "ended_by", "has_begun", "held", "is_stream")

    def __init__(self, task: asyncio.Task[None], room: BodyRoom) -> None:
        self._task = task
        self.held = BodyShare(room)
        self.caller: Caller | None = None
        self.ended_by: ComptoirError | None = None
        # A replica has begun to answer it; and in a stream, whose end can be an error event.
        self.has_begun = False
        self.is_stream = False

    def end(self, error: ComptoirError) -> None:
        """End the request, once; the client gets the error."""
        if self.ended_by is None:
            self.ended_by = error
            self._task.cancel()

    def was_ended(self) -> bool:
        """Whether the cancellation that its task has just caught is ours; it is over then."""
        if self.ended_by is None:
            return False
        self._task.uncancel()
        return True


class OpenRequests(set[OpenRequest]):
    """Every request that is open in this gateway."""

    def end(self, refusal: Callable[[Caller], ComptoirError | None]) -> int:
        """End those that no replica has begun to answer and whose caller is refused now; says how many."""
        ended = 0
        for request in tuple(self):
            if request.caller is None or request.has_begun:
                continue
            if (error := refusal(request.caller)) is not None:
                request.end(error)
                ended += 1
        return ended
