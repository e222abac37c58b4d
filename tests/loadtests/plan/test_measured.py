"""Which sweeps count for a class, and which one is missing."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.plan.measured import wanted_s
from loadtests.plan.sources import capacities
from loadtests.plan.sweeps import Measured
from serving.errors import ConfigError
from tests.loadtests.plan.helpers import CATALOGUE, SLO, config, measured, traffic


def known(sweeps: list[Measured], **update: Any) -> Any:
    """The capacity of the plan's only class."""
    found = capacities(config(**update), sweeps, CATALOGUE, measured_only=True)
    return found["chat"]


def test_the_rate_and_the_seconds_come_from_the_sweep() -> None:
    one = known([measured(10)])
    assert one.rate_per_s(1, "typical") == pytest.approx(10)
    assert one.e2e_s == {"low": 4.0, "typical": 5.0, "high": 5.0}
    assert one.basis == "measured"


def test_lengths_between_two_sweeps_are_interpolated() -> None:
    sweeps = [measured(16, inputs=500, outputs=100), measured(4, inputs=2000, outputs=400)]
    assert known(sweeps).rate_per_s(1, "typical") == pytest.approx(8)


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ({"input_tokens": 4000}, "requests at least as long is missing"),
        ({"output_tokens": 50}, "requests at least as short is missing"),
    ],
)
def test_beyond_what_was_measured_the_sweep_to_run_is_named(
    lengths: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        known([measured(10)], traffic=[traffic(**lengths)])
    wanted = {"input_tokens": 1000, "output_tokens": 200} | lengths
    assert said in caught.value.message
    assert (
        f"`comptoir load sweep SCENARIO --input {wanted['input_tokens']} --output "
        f"{wanted['output_tokens']} --gpu h100 --gpus-per-replica 1 --replicas 1`"
    ) in caught.value.message
    assert "a scenario that asks m" in caught.value.message


def test_other_numbers_of_replicas_may_lack_these_lengths() -> None:
    one = known([measured(10), measured(99, inputs=9000, replicas=4)])
    assert one.measured_replicas == (1,)


def test_short_runs_count_only_where_no_others_do() -> None:
    # 10 000 requests a run, and 1500 in flight.
    short = measured(300, replicas=20)
    one = known([measured(2), short])
    assert one.measured_replicas == (1,)
    assert one.short_sweeps == ("sweep.json",)
    assert known([short]).measured_replicas == (20,)


def test_a_sweep_tells_how_long_its_runs_should_have_been() -> None:
    assert wanted_s(measured(20)) is None
    # 10 000 requests with 500 in flight: twenty times their duration of 5 s.
    assert wanted_s(measured(100)) == pytest.approx(1.25 * 30 * 5)


def test_an_slo_must_have_been_swept_as_strictly() -> None:
    strict = known([measured(10)], traffic=[traffic(slo={"ttft_ms": 2000, "target": 0.9})])
    assert strict.rate_per_s(1, "typical") == pytest.approx(10)
    for wanted in ({"ttft_ms": 500}, {"tpot_ms": 50}, {"ttft_ms": 1000, "target": 0.99}):
        with pytest.raises(
            ConfigError, match=r"traffic\.chat\.slo: no sweep of m .* swept: ttft_ms"
        ):
            known([measured(10)], traffic=[traffic(slo=wanted)])


def test_sweeps_with_different_slos_need_one_in_the_plan() -> None:
    sweeps = [measured(10), measured(8, slo=SLO | {"ttft_ms": 500})]
    with pytest.raises(ConfigError, match=r"slo: is required"):
        known(sweeps)
    assert known(sweeps, traffic=[traffic(slo={"ttft_ms": 500})]).rate_per_s(
        1, "typical"
    ) == pytest.approx(8)


def test_hardware_must_be_one_that_was_swept() -> None:
    other = measured(5, hardware={"gpu": "l40s", "gpus_per_replica": 2, "replicas": 1})
    with pytest.raises(ConfigError, match=r"several kinds of hardware \(1 x h100, 2 x l40s\)"):
        known([measured(10), other])
    one = known([measured(10), other], models={"m": {"gpu": "l40s"}})
    assert str(one.hardware) == "2 x l40s"
    with pytest.raises(ConfigError, match=r"models\.m: gpu .* are of 1 x h100"):
        known([measured(10)], models={"m": {"gpu": "h200"}})


def test_a_sweep_of_a_model_that_nobody_asks_is_named() -> None:
    with pytest.raises(ConfigError, match="measured model 'x'; the plan's traffic asks m"):
        known([measured(10, model="x")])


def test_the_kv_cache_bounds_the_requests_in_flight() -> None:
    free = known([measured(10)])
    # 36 000 tokens hold 20 long requests of 1800, that is 20 / 5 s.
    bound = known([measured(10)], models={"m": {"kv_cache_tokens": 36_000}})
    assert free.rate_per_s(1, "typical") == pytest.approx(10)
    assert bound.rate_per_s(1, "typical") == pytest.approx(4)
    assert bound.rate_per_s(3, "typical") == pytest.approx(12)
    batch = known([measured(10)], models={"m": {"max_num_seqs": 25}})
    assert batch.rate_per_s(1, "typical") == pytest.approx(5)
