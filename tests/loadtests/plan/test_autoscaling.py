"""What is pasted into a deployment file is accepted there."""

from __future__ import annotations

import pytest
import yaml

from loadtests.plan.autoscaling import as_yaml, model_args
from serving.errors import ConfigError
from serving.settings import ModelConfig
from tests.loadtests.plan.helpers import measured, plan, traffic


@pytest.mark.parametrize("autoscaling", [False, True])
def test_the_model_s_configuration_takes_it(autoscaling: bool) -> None:
    report = plan([measured(2, slo={"ttft_ms": 1500, "tpot_ms": 50})], spares=1, utilisation=0.8)
    args = model_args(report.plan, report.capacities, report.now, autoscaling=autoscaling)
    text = as_yaml(args, ["a plan", "of a test"])
    assert text.startswith("# a plan\n# of a test\nid: m\n")
    found = ModelConfig.from_args(yaml.safe_load(text))
    total = report.now.models[0].replicas.total
    assert (found.gpu, found.replicas.max) == ("h100", total)
    if not autoscaling:
        assert found.replicas.min == total
        return
    assert 1 <= found.replicas.min < total
    assert found.replicas.spare == 1
    assert (found.replicas.ttft_objective_s, found.replicas.itl_objective_s) == (1.5, 0.05)


def test_the_target_is_what_is_in_flight_on_a_replica_as_full_as_planned() -> None:
    # Two requests/s a replica, filled to 80 %, as many seconds each as at that rate.
    exact = [measured(2.0 * count, replicas=count) for count in (1, 8)]
    report = plan(exact, utilisation=0.8)
    args = model_args(report.plan, report.capacities, report.now, autoscaling=True)
    assert args[0]["replicas"]["target_requests"] == pytest.approx(
        0.8 * 2 * report.capacities["chat"].e2e_s["typical"], abs=0.1
    )


def test_several_models_are_several_documents() -> None:
    both = [traffic(), traffic(name="other", model="n", share=1)]
    cpu = {"gpu": None, "gpus_per_replica": 0, "replicas": 1}
    prices = {"h100": 3.0, "cpu": 0.1}
    report = plan(
        [measured(10), measured(2, model="n", hardware=cpu)],
        traffic=both,
        site={"eur_per_gpu_hour": prices},
    )
    documents = list(yaml.safe_load_all(as_yaml(list(report.args), [])))
    found = [ModelConfig.from_args(one) for one in documents]
    assert [(one.id, one.device, one.gpu) for one in found] == [
        ("m", "gpu", "h100"),
        ("n", "cpu", None),
    ]


def test_more_replicas_than_a_model_may_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="a model may have 1024 at most"):
        plan([measured(0.001)])
