"""Takes one checked request to a replica of its model: choose, send, ask another if that one is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from serving.errors import ComptoirError, EngineFailedError, ModelUnavailableError
from serving.gateway.engine_errors import stream_error_at
from serving.gateway.upstream import Answer, ReplicaGoneError, Upstream
from serving.routing.directory import Directory, Replica, least_loaded

RETRY_AFTER_S = 5.0
# How long a replica that did not answer is passed over, unless it is the only one.
SUSPECT_S = 3.0
# A request under which two engines died is taken for the cause, and is not given to a third.
MAX_DEATHS = 2


class Forwarder:
    """Counts what is in flight and remembers which replicas did not answer."""

    def __init__(
        self,
        directory: Callable[[], Directory],
        upstream: Upstream,
        clock: Callable[[], float] = time.monotonic,
        wake: Callable[[str], None] = lambda model_id: None,
    ) -> None:
        self._directory = directory
        self._upstream = upstream
        self._clock = clock
        self._wake = wake
        self._suspects: dict[str, float] = {}
        self.in_flight: Counter[str] = Counter()

    async def open(
        self, model_id: str, path: str, body: bytes, request_id: str
    ) -> tuple[Answer, Replica]:
        """Send to the best replica, then to others while none has begun to answer.

        The caller must call `done(replica)` when it has finished with the answer.

        Raises:
            ModelUnavailableError: no replica answers; it carries Retry-After.
            ComptoirError: what the engine refused or failed at.
        """
        tried: set[str] = set()
        deaths = 0
        while True:
            replica = self._choose(model_id, tried)
            if replica is None:
                raise self._unavailable(model_id)
            tried.add(replica.id)
            self.in_flight[replica.id] += 1
            try:
                answer = await self._upstream.post(replica, path, body, request_id)
                if answer.status == 200 and stream_error_at(answer.first) == 0:
                    # The engine failed before it produced a token: nothing has reached the client.
                    answer.close()
                    raise ReplicaGoneError("error before the first token", sent=True)
                return answer, replica
            except ReplicaGoneError as gone:
                self._suspects[replica.id] = self._clock() + SUSPECT_S
                self.done(replica)
                deaths += gone.sent
                if deaths >= MAX_DEATHS:
                    raise EngineFailedError("the engine failed on this request") from None
            except BaseException:
                self.done(replica)
                raise

    def done(self, replica: Replica) -> None:
        """The request at this replica is over."""
        self.in_flight[replica.id] -= 1
        if self.in_flight[replica.id] <= 0:
            del self.in_flight[replica.id]

    def _choose(self, model_id: str, tried: set[str]) -> Replica | None:
        model = self._directory().models.get(model_id)
        if model is None:
            return None
        now = self._clock()
        self._suspects = {name: until for name, until in self._suspects.items() if until > now}
        return least_loaded(
            model.replicas, self.in_flight, tried | self._suspects.keys()
        ) or least_loaded(model.replicas, self.in_flight, tried)

    def _unavailable(self, model_id: str) -> ComptoirError:
        model = self._directory().models.get(model_id)
        starting = model is not None and not model.replicas
        if starting:
            # It may be scaled to zero: Serve starts a replica when it is asked for one.
            self._wake(model_id)
        return ModelUnavailableError(
            "the model is starting; try again shortly"
            if starting
            else "no replica of the model answers now; try again shortly",
            param="model",
            retry_after_s=RETRY_AFTER_S,
        )
