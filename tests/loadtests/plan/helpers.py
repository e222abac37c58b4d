"""Sweeps and plans for the tests, in one line."""

from __future__ import annotations

from typing import Any

from loadtests.plan.cli import make
from loadtests.plan.model import PlanConfig
from loadtests.plan.render import Report
from loadtests.plan.sweeps import Measured, parse_sweep
from serving.catalogue.catalogue import load_catalogue
from serving.config.base import validated

CATALOGUE = load_catalogue()
SLO = {"ttft_ms": 1000.0, "target": 0.95}


def point(rate: float, share: float, **update: Any) -> dict[str, Any]:
    """One run of a sweep."""
    return {
        "rate_per_s": rate,
        "requests": 10_000,
        "good": int(10_000 * share),
        "attainment": share,
        "wilson_low": share - 0.01,
        "backlog_grows": False,
        "valid": True,
        "passed": share >= 0.96,
        "e2e_mean_s": 5.0,
        "ttft_p95_ms": 500.0,
        "output_tokens_per_s": 100.0,
        "in_flight_mean": rate * 5,
    } | update


def document(
    rate: float = 10.0,
    *,
    model: str = "m",
    inputs: float = 1000,
    outputs: float = 200,
    replicas: int = 1,
    **update: Any,
) -> dict[str, Any]:
    """A sweep.json whose SLO ends at `rate`."""
    points = [point(rate / 2, 1.0, e2e_mean_s=4.0), point(rate, 0.95, passed=True)]
    return {
        "comptoir_sweep": 1,
        "created": "2026-11-25T12:00:00+00:00",
        "scenario": "chat",
        "url": "http://127.0.0.1:8000",
        "model": model,
        "hardware": {"gpu": "h100", "gpus_per_replica": 1, "replicas": replicas},
        "class": "chat",
        "input_tokens_mean": inputs,
        "output_tokens_mean": outputs,
        "total_tokens_p95": 1.5 * (inputs + outputs),
        "slo": SLO,
        "points": [*points, point(rate * 1.01, 0.94)],
        "rate_per_s": rate,
        "rate_fails_per_s": rate * 1.01,
        "confirmed": True,
    } | update


def measured(rate: float = 10.0, **update: Any) -> Measured:
    """A sweep as it is read."""
    return parse_sweep(document(rate, **update), "sweep.json")


def config(**update: Any) -> PlanConfig:
    """A plan of one class; users wait 5 s for an answer and think for 15."""
    plan = {
        "users": 2000,
        "active_share": 0.1,
        "utilisation": 1.0,
        "spares": 0,
        "traffic": [traffic()],
        "site": {"eur_per_gpu_hour": {"h100": 3.0}, "country": "DE", "pue": 1.2},
    }
    return validated(PlanConfig, plan | update, "plan.yaml")


def traffic(**update: Any) -> dict[str, Any]:
    """One class."""
    return {
        "name": "chat",
        "share": 1,
        "model": "m",
        "input_tokens": 1000,
        "output_tokens": 200,
        "think_s": 15,
    } | update


def plan(sweeps: list[Measured] | None = None, **update: Any) -> Report:
    """A whole plan."""
    found = [measured()] if sweeps is None else sweeps
    return make(config(**update), found, CATALOGUE)
