"""The gateway's decisions and load, for /status and /metrics: numbers and fixed words."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from serving import __version__
from serving.config.revisions import public_name
from serving.discovery.directory import Model, Replica
from serving.gateway import listing
from serving.gateway.forwarding import Forwarder
from serving.gateway.services import Services
from serving.telemetry.metrics import Moment
from serving.telemetry.moment import ENGINE_SIGNALS
from serving.tenancy.keys import Caller

# By their rank, for alerts: anything above 0 is not well.
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
# Serve's words for replicas that go.
LEAVING = frozenset({"STOPPING", "STOPPED"})
# Labels of metrics that name a model.
MODEL_LABELS = ("model", "failed_model")
# What gateways tell each other of each model.
ASKED = ("open", "requests", "failed", "first_byte_count", "first_byte_sum")


def status(services: Services, caller: Caller) -> dict[str, Any]:
    """For an operator every model: its replicas, their load, and what the gateway makes of it.

    For a tenant the models that the key may use, and their states: how busy they are is others' business.
    """
    now = time.monotonic()
    models = sorted(services.directory().models.values(), key=lambda model: model.id)
    if not caller.sees_site:
        found = [_own_model(model) for model in models if caller.may_use(model.id)]
        return {"view": view(False), "models": found}
    queues = {each.model_id: each for each in services.admission.snapshots()}
    found = [_model(services, model, queues.get(model.id), now) for model in models]
    elsewhere = services.elsewhere()
    here = demand(services)
    for each in found:
        each["asked"] = together([here, *elsewhere], each["id"])
    settings = {"keys": len(services.keys), "refused": dict(services.refused_changes)}
    return {
        "view": view(True),
        "gateways": 1 + len(elsewhere),
        "settings": settings,
        "dropped_fields": services.dropped.counts,
        "models": found,
    }


def demand(services: Services) -> dict[str, dict[str, float]]:
    """This gateway's demand for each model, where there is any.

    `open` are requests that wait, are held or are being answered. Of models that run in two revisions also
    those since the start: `failed` are those that the model did not answer well, also where another one took
    over; nothing that the client did wrong. It is called every second, so it looks at no more than that.
    """
    models = services.directory().models
    revisions = Counter(public_name(name) for name in models)
    found = {}
    for name in models:
        figures: dict[str, float] = {
            "open": services.admission.demand(name) + services.holding.held(name)
        }
        if revisions[public_name(name)] > 1:
            figures |= services.metrics.figures(name)
        if any(figures.values()):
            found[name] = figures
    return found


def together(said: Iterable[Mapping[str, Any]], model_id: str) -> dict[str, float]:
    """The demand for a model at all gateways together."""
    found = dict.fromkeys(ASKED, 0.0)
    for each in said:
        for kind, value in (each.get(model_id) or {}).items():
            if kind in found:
                found[kind] += value
    return found


def view(is_whole: bool) -> str:
    """What `view` of /status and the header of both pages say: the site's, or one tenant's."""
    return "site" if is_whole else "tenant"


def own_rows(caller: Caller) -> Callable[[Mapping[str, str]], bool]:
    """Which rows of /metrics a tenant sees, by their labels: its own, and those of models that it may use.

    Rows of the process and of single replicas are the site's own.
    """

    def sees(labels: Mapping[str, str]) -> bool:
        if "replica" in labels:
            return False
        if "tenant" in labels:
            return labels["tenant"] == caller.name
        models = [labels[name] for name in MODEL_LABELS if labels.get(name)]
        return bool(models) and all(map(caller.may_use, models))

    return sees


def _own_model(model: Model) -> dict[str, Any]:
    return {"id": model.id, "state": listing.model_state(model), "replicas": []}


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
        "held": services.holding.held(model.id),
        "replicas": _replicas(forwarder, model.replicas, now),
        "prefill": _prefill(services, model, now),
    }


def _prefill(services: Services, model: Model, now: float) -> dict[str, Any] | None:
    """The replicas that compute the model's long prompts; None for a model that has no such thing."""
    if model.prefill_min_tokens is None:
        return None
    return {
        "min_prompt_tokens": model.prefill_min_tokens,
        "wanted": dict(model.prefill_wanted),
        "replicas": _replicas(services.prefill.forwarder, model.prefill, now),
    }


def _replicas(
    forwarder: Forwarder, replicas: Iterable[Replica], now: float
) -> list[dict[str, Any]]:
    return [
        {
            "id": replica.id,
            "in_flight": forwarder.in_flight.get(replica.id, 0),
            "breaker": asdict(forwarder.breakers.replica(replica.id).snapshot(now)),
        }
        | {name: round(value, 4) for name, value in replica.stats.reported.items()}
        for replica in replicas
    ]


def gauges(services: Services) -> Iterable[Moment]:
    """The moment's values for /metrics."""
    now = time.monotonic()
    yield "build_info", {"version": __version__}, 1
    yield "keys", {}, len(services.keys)
    for source in ("keys_file", "user_config"):
        yield "settings_refused", {"source": source}, int(source in services.refused_changes)
    for model in services.directory().models.values():
        services.metrics.expect(model.id)
        yield from _model_gauges(services, model, now)
        yield from _replica_gauges(services.forwarder, model.id, model.replicas, now)
        prefill = services.prefill.forwarder
        yield from _replica_gauges(prefill, model.id, model.prefill, now)
    for queue in services.admission.snapshots():
        labels = {"model": queue.model_id}
        yield "admission_slots", labels, queue.slots
        yield "admission_open", labels, queue.open
        yield "admission_waiting", labels, services.admission.queued(queue.model_id)
        oldest = max(queue.queue.oldest_wait_s.values(), default=0.0)
        yield "admission_oldest_wait_seconds", labels, oldest


def _replica_gauges(
    forwarder: Forwarder, model_id: str, replicas: Iterable[Replica], now: float
) -> Iterable[Moment]:
    for replica in replicas:
        labels = {"model": model_id, "replica": replica.id}
        yield "in_flight", labels, forwarder.in_flight.get(replica.id, 0)
        breaker = forwarder.breakers.replica(replica.id).snapshot(now)
        yield "breaker_state", labels, BREAKER_STATES[breaker.state]
        yield "breaker_openings_total", labels, breaker.openings
        for signal, name in ENGINE_SIGNALS.items():
            yield name, labels, getattr(replica.stats, signal)


def _model_gauges(services: Services, model: Model, now: float) -> Iterable[Moment]:
    name, forwarder = {"model": model.id}, services.forwarder
    yield "application_state", name | {"state": model.state}, 1
    yield "replicas", name, len(model.replicas)
    yield "requests_held", name, services.holding.held(model.id)
    if model.prefill_min_tokens is not None:
        yield "prefill_replicas", name, len(model.prefill)
    there = sum(count for state, count in model.wanted.items() if state not in LEAVING)
    # Serve's own count comes with the next look at its status.
    yield "replicas_wanted", name, there if model.wanted else len(model.replicas)
    for state, count in model.wanted.items():
        yield "replicas_by_state", name | {"state": state}, count
    breaker = forwarder.breakers.models.get(model.id)
    state = breaker.snapshot(now).state if breaker else "closed"
    yield "model_breaker_state", name, BREAKER_STATES[state]
    lane = forwarder.lanes.get(model.id)
    if lane is not None:
        budget = lane.budget.snapshot(now)
        yield "retry_budget_left", name, budget["left"]
        yield "retries_refused_total", name, budget["refused"]
