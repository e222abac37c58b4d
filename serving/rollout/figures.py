"""The figures of a rollout's two revisions in a gateway's /status, for all gateways. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import StackError
from serving.replica_facts import ReplicaStats


@dataclass(frozen=True)
class Figures:
    """One revision, since its gateways started: requests it was given, and how they went."""

    requests: int = 0
    failed: int = 0
    first_byte_s: float | None = None

    @property
    def error_share(self) -> float | None:
        """Of its requests; None without any."""
        return self.failed / self.requests if self.requests else None


def figures(status: Mapping[str, Any], model: str) -> Figures:
    """The figures of a model, from all gateways.

    A request that another model took over counts here as failed, although its client got an answer: that
    is what one wants to know of a canary. So does a stream that broke, and nothing that the client did wrong.
    """
    said = _model(status, model).get("asked") or {}
    answered = said.get("first_byte_count", 0)
    return Figures(
        requests=int(said.get("requests", 0)),
        failed=int(said.get("failed", 0)),
        first_byte_s=said.get("first_byte_sum", 0.0) / answered if answered else None,
    )


def open_requests(status: Mapping[str, Any], model: str) -> int:
    """Requests that wait for a model at any gateway or are being answered."""
    one = _model(status, model)
    here = one.get("admission") or {}
    waiting = sum((here.get("queue") or {}).get("waiting", {}).values())
    replicas = one.get("replicas", ())
    stats = [ReplicaStats.parse(each) for each in replicas]
    # This gateway's own count is current; the replicas' know the others, also those that are just leaving.
    answering = sum(
        max(int(each.get("in_flight", 0)), int(its.open_requests))
        for each, its in zip(replicas, stats, strict=True)
    )
    # Of a gateway that leaves only its last request tells, and which of them has the longest queue.
    queued = max((int(its.gateway_queue) for its in stats), default=0)
    everywhere = int((one.get("asked") or {}).get("open", 0))
    return max(int(waiting) + answering, queued + answering, everywhere)


def require_site(status: Mapping[str, Any]) -> None:
    """Refuse a status of one tenant's part, which does not show all waiting requests.

    Raises:
        StackError: the key lacks the scope operator.
    """
    if status.get("view") == "tenant":
        raise StackError(
            "this API key does not see the queues of the site: give one with the scope operator, which "
            "`comptoir keys new NAME --scope operator --scope inference` makes",
            param="key",
        )


def is_ready(status: Mapping[str, Any], model: str) -> bool:
    """Whether the gateway can send requests to a model; one that sleeps counts, it wakes for them."""
    return _model(status, model).get("state") in ("ready", "idle")


def _model(status: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    return next((one for one in status.get("models", ()) if one.get("id") == model), {})
