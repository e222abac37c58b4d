"""loadtests/checks/plan_real.py: what it deploys, and what it takes from the planner."""

from __future__ import annotations

from loadtests.checks.plan_real import MODEL, deployment, predicted, scenario
from serving.settings import ModelConfig
from tests.loadtests.plan.helpers import measured


def test_its_deployment_and_scenario_are_valid() -> None:
    [_, model] = deployment(2)["applications"]
    config = ModelConfig(**model["args"])
    assert (config.replicas.min, config.replicas.max) == (2, 2)
    assert scenario("http://127.0.0.1:1", 40).classes[0].model == MODEL


def test_two_replicas_carry_at_least_twice_what_one_does_for_sure() -> None:
    one = measured(10.0, model=MODEL, hardware={"gpu": None, "replicas": 1})
    sure, probably, most = predicted(one)
    assert 20 * 0.95 <= sure <= probably <= most
