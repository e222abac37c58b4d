"""What a scrape and a status say of two revisions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from serving.config.admission import AdmissionConfig
from serving.errors import StackError
from serving.observability.metrics import GatewayMetrics
from serving.rollout.figures import Figures, figures, is_ready, open_requests
from serving.routing.fair_queue import FairQueue
from serving.routing.fair_shares import Entry


def test_a_request_that_another_model_took_over_is_the_canarys_failure() -> None:
    # The gateway's own counters, so that a renamed one fails here.
    metrics = GatewayMetrics("gateway-1")
    metrics.expect("qwen3--r2")
    for outcome, count in {"ok": 90, "failed": 2, "broken": 1, "refused": 4, "busy": 1}.items():
        metrics.outcomes.labels("qwen3--r2", outcome).inc(count)
    metrics.failovers.labels("qwen3--r2", "unhealthy").inc(2)
    metrics.first_byte.labels("qwen3--r2").observe(0.1)
    metrics.first_byte.labels("qwen3--r2").observe(0.3)
    metrics.outcomes.labels("qwen3", "failed").inc(50)
    seen = figures(metrics.render().decode(), "qwen3--r2")
    assert (seen.requests, seen.failed, seen.error_share) == (100, 5, 0.05)
    assert seen.first_byte_s == pytest.approx(0.2)


def test_without_requests_there_is_no_share() -> None:
    assert figures(GatewayMetrics().render().decode(), "qwen3") == Figures()
    assert Figures().error_share is None


def test_a_page_that_is_no_scrape_is_said_to_be_none() -> None:
    with pytest.raises(StackError, match="not in Prometheus' format"):
        figures("<html>it works</html>", "qwen3")


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
