"""Estimates from the catalogue's figures."""

from __future__ import annotations

import pytest

from loadtests.plan.model import HostedConfig, TrafficConfig
from loadtests.plan.roofline import estimate, layout_for
from serving.catalogue.gpus import GPUS
from serving.errors import ConfigError
from tests.loadtests.plan.helpers import CATALOGUE, plan, traffic

QWEN = CATALOGUE.get("qwen3-32b")
H100 = GPUS["h100"]


def rate(gpus: int = 2, **update: object) -> float:
    kind = TrafficConfig.model_validate(traffic(**update))
    layout = layout_for(QWEN, H100, HostedConfig(gpus_per_replica=gpus))
    return estimate(QWEN, H100, layout, gpus, kind, HostedConfig(), "typical").rate_per_s


def test_one_request_at_a_time_is_bound_by_reading_the_weights() -> None:
    alone = HostedConfig(max_num_seqs=1)
    layout = layout_for(QWEN, H100, HostedConfig(gpus_per_replica=2))
    kind = TrafficConfig.model_validate(traffic(input_tokens=1, output_tokens=1000))
    found = estimate(QWEN, H100, layout, 2, kind, alone, "typical")
    # 60 % of 2 x 3350 GB/s over the weights: so many tokens come in a second.
    tokens_per_s = 0.6 * 2 * 3350e9 / QWEN.weight_bytes
    assert found.e2e_s == pytest.approx(1000 / tokens_per_s, rel=0.03)


def test_longer_requests_and_fewer_gpus_mean_less() -> None:
    assert rate(input_tokens=4000) < rate(input_tokens=1000)
    assert rate(output_tokens=400) < rate(output_tokens=200)
    assert rate(gpus=2) < rate(gpus=4)


def test_an_slo_costs_throughput_until_it_cannot_be_kept() -> None:
    free, paced = rate(), rate(slo={"tpot_ms": 25})
    assert 0 < paced < free
    assert rate(slo={"tpot_ms": 2}) == 0
    with pytest.raises(ConfigError, match=r"traffic\.chat\.slo: by the estimate, 2 x h100 cannot"):
        plan(
            [],
            traffic=[traffic(model="qwen3-32b", slo={"tpot_ms": 2})],
            models={"qwen3-32b": {"gpu": "h100", "gpus_per_replica": 2}},
        )


def test_a_mixture_of_experts_reads_more_weights_in_a_larger_batch() -> None:
    mixture = CATALOGUE.get("glm-4.5-air")
    layout = layout_for(mixture, GPUS["h200"], HostedConfig(gpus_per_replica=2))
    kind = TrafficConfig.model_validate(traffic(input_tokens=1, output_tokens=1000))

    def e2e_s(batch: int) -> float:
        hosted = HostedConfig(max_num_seqs=batch)
        return estimate(mixture, GPUS["h200"], layout, 2, kind, hosted, "typical").e2e_s

    # A batch of eight reads several times as many experts as one request.
    assert e2e_s(8) > 2 * e2e_s(1)


def test_weights_that_leave_no_memory_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit on 1 x l40s: raise gpus_per_replica"):
        layout_for(CATALOGUE.get("glm-4.5"), GPUS["l40s"], HostedConfig(gpus_per_replica=1))
