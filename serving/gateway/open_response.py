"""The answer to a client's request once a model has begun it: who answers, and what ends with it."""

from __future__ import annotations

from dataclasses import dataclass

from serving.gateway.bills import Bills
from serving.gateway.model_queue import Slot
from serving.gateway.replica_response import ReplicaResponse
from serving.routing.lifetimes import deprecation_headers
from serving.routing.route import Candidate, Route
from serving.telemetry.metrics import GatewayMetrics


@dataclass(slots=True)
class OpenResponse:
    """An answer that has begun, and how it came about: use it as a context manager.

    At its end the connection to the replica and the slot are free, and what it cost is charged.
    """

    replica_response: ReplicaResponse
    slot: Slot
    candidate: Candidate
    route: Route
    tenant: str
    metrics: GatewayMetrics
    bills: Bills
    is_broken: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers for the client: the model that answers, whether as a fallback, and deprecations."""
        headers = {"x-comptoir-model": self.candidate.served_name}
        if self.candidate.reason != "named":
            headers["x-comptoir-route"] = self.candidate.reason
        return headers | deprecation_headers(self.route)

    def close(self, *error: object) -> None:
        """Close the answer. If it is not complete, the engine aborts its request."""
        response, slot = self.replica_response, self.slot
        slot.usage = response.answer.usage
        response.close()
        self.bills.release(slot, response.request.request_id)
        outcome = "broken" if self.is_broken else "ok"
        self.metrics.outcomes.labels(self.candidate.model_id, outcome).inc()
        self.metrics.tenant(self.tenant)[outcome].inc()

    def __enter__(self) -> OpenResponse:
        return self

    __exit__ = close

    def broke(self) -> None:
        """The answer has stopped before its end."""
        self.is_broken = True
        self.metrics.broken_streams.labels(self.candidate.model_id).inc()
        self.replica_response.broke()
