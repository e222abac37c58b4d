"""What a status says of two revisions, for all gateways."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from serving.admission.fair_queue import FairQueue
from serving.admission.fair_shares import Entry
from serving.config.admission import AdmissionConfig
from serving.discovery.directory import Directory, Model
from serving.errors import StackError
from serving.gateway import report
from serving.gateway.admission import Estimate
from serving.gateway.services import Services
from serving.replica_facts import ModelCard
from serving.rollout.figures import Figures, figures, is_ready, open_requests, require_site
from serving.settings import GatewayConfig
from serving.tenancy.keys import ANONYMOUS, Caller


def gateway(*models: str) -> Services:
    directory = Directory(Model(name, ModelCard()) for name in models)
    return Services.build(GatewayConfig(), lambda: directory)


def seen_by(services: Services) -> dict[str, Any]:
    """/status, as an operator sees it."""
    return report.status(services, ANONYMOUS)


def test_a_request_that_another_model_took_over_is_the_canarys_failure() -> None:
    # The gateway's own counters, so that a renamed one fails here.
    services = gateway("qwen3", "qwen3--r2")
    metrics = services.metrics
    metrics.expect("qwen3--r2")
    for outcome, count in {"ok": 90, "failed": 2, "broken": 1, "refused": 4, "busy": 1}.items():
        metrics.outcomes.labels("qwen3--r2", outcome).inc(count)
    metrics.failovers.labels("qwen3--r2", "unhealthy").inc(2)
    metrics.first_byte.labels("qwen3--r2").observe(0.1)
    metrics.first_byte.labels("qwen3--r2").observe(0.3)
    metrics.outcomes.labels("qwen3", "failed").inc(50)
    seen = figures(seen_by(services), "qwen3--r2")
    assert (seen.requests, seen.failed, seen.error_share) == (100, 5, 0.05)
    assert seen.first_byte_s == pytest.approx(0.2)


def test_without_requests_there_is_no_share() -> None:
    assert figures(seen_by(gateway("qwen3")), "qwen3") == Figures()
    assert figures({}, "qwen3") == Figures()
    assert Figures().error_share is None


def test_figures_are_those_of_all_gateways() -> None:
    here, there = gateway("qwen3", "qwen3--r2"), gateway("qwen3", "qwen3--r2")
    for one in (here, there):
        one.metrics.outcomes.labels("qwen3", "ok").inc(3)
        one.metrics.first_byte.labels("qwen3").observe(0.5)
    there.metrics.outcomes.labels("qwen3", "failed").inc(2)
    here.elsewhere = lambda: [report.demand(there)]
    found = seen_by(here)
    assert found["gateways"] == 2
    seen = figures(found, "qwen3")
    assert (seen.requests, seen.failed, seen.first_byte_s) == (8, 2, 0.5)


async def test_what_waits_at_another_gateway_is_open_too() -> None:
    here, there = gateway("qwen3"), gateway("qwen3")
    caller, estimate = Caller("a", frozenset({"*"})), Estimate(1, 1)
    slot = await there.admission.acquire(Model("qwen3", ModelCard()), caller, estimate)
    assert open_requests(seen_by(here), "qwen3") == 0
    here.elsewhere = lambda: [report.demand(there)]
    assert open_requests(seen_by(here), "qwen3") == 1
    slot.release()
    assert open_requests(seen_by(here), "qwen3") == 0


def test_what_waits_at_a_gateway_that_leaves_is_open_as_its_requests_say() -> None:
    replica = {"in_flight": 0, "open_requests": 1.0, "gateway_queue": 5.0}
    model = {"id": "qwen3", "replicas": [replica, replica | {"gateway_queue": 2.0}]}
    assert open_requests({"models": [model]}, "qwen3") == 7


def test_a_status_that_shows_a_tenants_part_is_not_enough() -> None:
    require_site(seen_by(gateway()))
    with pytest.raises(StackError, match="scope operator"):
        require_site(report.status(gateway(), Caller("a", frozenset())))


def queue_of(waiting: int) -> dict[str, Any]:
    """What /status says of a queue in which so many wait."""
    queue = FairQueue(AdmissionConfig())
    queue.slots = 0
    for _ in range(waiting):
        queue.offer(Entry("tenant", "standard", 1.0, 10, 10, deadline_s=60.0), 0.0)
    return asdict(queue.snapshot(0.0))


def status(state: str = "ready", waiting: int = 0, *replicas: tuple[int, float]) -> dict[str, Any]:
    return {
        "models": [
            {
                "id": "qwen3",
                "state": state,
                "admission": {"queue": queue_of(waiting)},
                "replicas": [{"in_flight": one, "open_requests": two} for one, two in replicas],
            }
        ]
    }


def test_requests_are_open_while_they_wait_or_are_answered_by_any_gateway() -> None:
    assert open_requests(status("ready", 3, (2, 0.0), (1, 4.0)), "qwen3") == 9
    assert open_requests(status(), "qwen3") == 0
    assert open_requests(status("ready", 3), "glm") == 0


def test_a_model_that_sleeps_can_be_asked() -> None:
    assert is_ready(status("ready"), "qwen3")
    assert is_ready(status("idle"), "qwen3")
    assert not is_ready(status("starting"), "qwen3")
    assert not is_ready(status(), "glm")
