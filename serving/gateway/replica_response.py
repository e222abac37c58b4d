"""A replica's answer that has begun: counted while it is in progress, billed at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from serving.discovery.directory import Replica
from serving.gateway.bills import Bills
from serving.gateway.blame import Refusal
from serving.gateway.lanes import Lanes
from serving.gateway.replica_request import ReplicaRequest
from serving.gateway.upstream import Answer
from serving.records import record
from serving.replica_protocol import Bill, Usage
from serving.replicas.choice import Choice


class Traffic:
    """The requests in progress from one forwarder to replicas, and the callbacks at their end."""

    def __init__(
        self, lanes: Lanes, bills: Bills, clock: Callable[[], float], *, is_prefill: bool
    ) -> None:
        self.lanes = lanes
        self.bills = bills
        self.is_prefill = is_prefill
        self.in_flight: Counter[str] = Counter()
        self._clock = clock

    def ended(self, replica: Replica) -> None:
        """Note the end, in any way, of a request to this replica: it may have a bill."""
        self.bills.touched(replica)
        self.in_flight[replica.id] -= 1
        if self.in_flight[replica.id] <= 0:
            del self.in_flight[replica.id]

    def broke(self, replica: Replica) -> None:
        """Note that a replica's machine has vanished in the middle of an answer."""
        self.lanes.breakers.replica(replica.id).broke(self._clock())


@record
class ReplicaResponse:
    """An answer that has begun, and who was chosen for it: `close` it, or use it as a context manager.

    `refusal`: the answer is an error of the request, which stood in its stream.
    """

    request: ReplicaRequest
    answer: Answer
    choice: Choice
    traffic: Traffic
    refusal: Refusal | None = None

    @property
    def replica(self) -> Replica:
        """The replica that answers."""
        return self.choice.replica

    def close(self, *error: object) -> None:
        """Close the answer. If it is not complete, the engine aborts its request."""
        answer, request, traffic, replica = (
            self.answer,
            self.request,
            self.traffic,
            self.choice.replica,
        )
        answer.close()
        traffic.ended(replica)
        usage = answer.usage
        if usage is None:
            return
        bill = self._bill(usage, is_prefill=traffic.is_prefill, ended_s=time.time())
        traffic.bills.told(replica, bill, request.tenant)
        lane = traffic.lanes.all.get(request.model_id)
        # What one sequence of a request has written is cached for its next one: that teaches nothing.
        if lane is not None and usage.sequences <= 1:
            lane.policy.served(
                request.routed, self.choice, usage.cached_tokens, usage.prompt_tokens
            )

    def __enter__(self) -> ReplicaResponse:
        return self

    __exit__ = close

    def broke(self) -> None:
        """The answer has stopped before its end; nobody can take over.

        A machine that vanished is to blame. Everything else may follow the request; a replica that is dead
        accepts no more connections, and the next request tells.
        """
        if self.answer.has_vanished:
            self.traffic.broke(self.choice.replica)

    def _bill(self, usage: Usage, *, is_prefill: bool, ended_s: float) -> Bill:
        """The replica's bill that came with its answer."""
        request, is_refused = self.request, self.refusal is not None or self.answer.status >= 400
        return Bill(
            usage.bill,
            request.request_id,
            request.key,
            request.model_id,
            request.adapter,
            request.path,
            is_prefill,
            "failed" if is_refused else "ok",
            round(ended_s, 3),
            usage,
        )
