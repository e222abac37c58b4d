"""What this gateway decides and how busy it is, for /status and /metrics: numbers and fixed words."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from serving.gateway import listing
from serving.gateway.services import Services
from serving.routing.directory import Model
from serving.tenancy.keys import Caller

# By their rank, for alerts: anything above 0 is not well.
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}


def status(services: Services, caller: Caller) -> dict[str, Any]:
    """Each model that the caller may use: its replicas, their load, and what the gateway makes of it."""
    now = time.monotonic()
    queues = {each.model_id: each for each in services.admission.snapshots()}
    models = services.directory().models
    return {
        "models": [
            _model(services, model, queues.get(model.id), now)
            for model in sorted(models.values(), key=lambda model: model.id)
            if caller.may_use(model.id)
        ]
    }


def _model(services: Services, model: Model, queue: Any, now: float) -> dict[str, Any]:
    forwarder = services.forwarder
    lane = forwarder.lanes.get(model.id)
    breaker = forwarder.breakers.models.get(model.id)
    return {
        "id": model.id,
        "state": listing.model_state(model),
        "application": model.state,
        "policy": services.config.replica_routing.policy,
        "wanted": dict(model.wanted),
        "breaker": breaker.snapshot(now).state if breaker else "closed",
        "retries": dict(lane.budget.snapshot(now)) if lane else None,
        "admission": asdict(queue) if queue else None,
        "replicas": [
            {
                "id": replica.id,
                "in_flight": forwarder.in_flight.get(replica.id, 0),
                "breaker": asdict(forwarder.breakers.replica(replica.id).snapshot(now)),
            }
            | {name: round(value, 4) for name, value in replica.stats.items()}
            for replica in model.replicas
        ],
    }


def gauges(services: Services) -> Iterable[tuple[str, dict[str, str], float]]:
    """The moment's values for /metrics."""
    now = time.monotonic()
    forwarder = services.forwarder
    for model in services.directory().models.values():
        name = {"model": model.id}
        yield "replicas", name, len(model.replicas)
        for state, count in model.wanted.items():
            yield "replicas_by_state", name | {"state": state}, count
        for replica in model.replicas:
            labels = name | {"replica": replica.id}
            yield "in_flight", labels, forwarder.in_flight.get(replica.id, 0)
            breaker = forwarder.breakers.replica(replica.id).snapshot(now)
            yield "breaker_state", labels, BREAKER_STATES[breaker.state]
            for signal in ("running", "waiting", "kv_cache_use", "tokens_per_s"):
                yield f"engine_{signal}", labels, replica.stats.get(signal, 0.0)
    for queue in services.admission.snapshots():
        name = {"model": queue.model_id}
        yield "admission_slots", name, queue.slots
        yield "admission_open", name, queue.open
        yield "admission_waiting", name, services.admission.queued(queue.model_id)
