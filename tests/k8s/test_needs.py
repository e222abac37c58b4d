"""How many pods a site needs: enough, not one more than packing asks for, and of the right type."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import ConfigError
from serving.kubernetes.needs import ModelNeed, groups, pods
from serving.kubernetes.overlays import site_config


def need(gpus: int = 1, gpu: str | None = "h200", low: int = 1, high: int = 1) -> ModelNeed:
    return ModelNeed(f"m{gpus}", gpu, gpus, 1.0, low, high)


def found(*needs: ModelNeed, **settings: Any) -> dict[str, tuple[int, int, int]]:
    config = site_config("eu-multi-node", settings)
    return {one.name: (one.size, one.pods_min, one.pods_max) for one in groups(config, needs)}


@given(st.lists(st.sampled_from([1, 2, 4, 8]), max_size=30), st.sampled_from([1, 2, 4, 8]))
def test_powers_of_two_are_packed_without_a_gap(replicas: list[int], size: int) -> None:
    small = sum(one for one in replicas if one <= size)
    whole = sum(math.ceil(one / size) for one in replicas if one > size)
    assert pods(replicas, size) == math.ceil(small / size) + whole


@given(st.lists(st.floats(0.1, 8), max_size=30))
def test_there_is_room_for_everyone(amounts: list[float]) -> None:
    count = pods(amounts, 8)
    assert math.ceil(sum(amounts) / 8 - 1e-6) <= count <= len(amounts)


def test_tenths_fill_a_core() -> None:
    assert pods([0.1] * 10, 1) == 1
    assert pods([0.1] * 11, 1) == 2


def test_a_pod_has_as_many_gpus_as_the_first_replicas_take_up_to_a_node() -> None:
    assert found(need(1)) == {"gpu-h200": (1, 1, 1)}
    assert found(need(2), need(1)) == {"gpu-h200": (4, 1, 1)}
    assert found(need(4), need(4), need(4)) == {"gpu-h200": (8, 2, 2)}


def test_a_replica_larger_than_a_pod_takes_whole_pods() -> None:
    assert found(need(16), need(1)) == {"gpu-h200": (8, 3, 3)}


def test_the_site_may_say_how_large_pods_are() -> None:
    assert found(need(1), gpus={"h200": {"gpus_per_pod": 8}}) == {"gpu-h200": (8, 1, 1)}


def test_a_model_that_sleeps_needs_no_pod_yet() -> None:
    assert found(need(2, low=0, high=3)) == {"gpu-h200": (2, 0, 3)}


def test_types_of_gpu_have_groups_of_their_own_beside_the_one_for_cpus() -> None:
    kinds = found(need(gpu="l40s"), need(gpu="h100", high=3), need(0, gpu=None))
    assert kinds == {"gpu-h100": (1, 1, 3), "gpu-l40s": (1, 1, 1), "cpu": (4, 1, 1)}


def test_a_type_that_the_site_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="model 'm1' needs h200, and the site has: h100, l40s"):
        found(need(), gpus={"l40s": {}, "h100": {}})


# ---- engines that stay on one node -------------------------------------------------------------------


def engine(gpus: int, ranks: int = 1, node: int = 8, low: int = 1) -> ModelNeed:
    return ModelNeed("big", "h200", gpus, 1.0, low, 1, ranks=ranks, gpus_per_node=node)


@pytest.mark.parametrize(
    ("one", "size", "telling"),
    [
        (engine(4), 2, "an engine has 4 GPUs and stays on one node (gpus_per_node: 8)"),
        (engine(4), 2, "set gpus.h200.gpus_per_pod: 4 in the settings, or set gpus_per_node: 2"),
        (engine(3), 2, "gpus_per_pod: 4 in the settings"),
        (engine(4, low=0), 2, "gpus_per_pod: 4 in the settings"),
        (engine(2, ranks=4), 1, "each of the 4 engines of a replica has 2 GPUs"),
        (engine(16), 4, "an engine has 16 GPUs and takes whole nodes (gpus_per_node: 8)"),
    ],
)
def test_pods_smaller_than_an_engine_that_stays_together_are_refused(
    one: ModelNeed, size: int, telling: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        found(one, gpus={"h200": {"gpus_per_pod": size}})
    assert raised.value.message.startswith("model 'big': ")
    assert f"and pods have {size} h200" in raised.value.message
    assert telling in raised.value.message
    assert raised.value.param == "gpus.h200.gpus_per_pod"


def test_an_engine_larger_than_any_pod_must_say_that_it_may_be_spread() -> None:
    with pytest.raises(ConfigError, match=r"pods have 8 h200: set gpus_per_node: 8 of the model"):
        found(engine(16, node=16))


@pytest.mark.parametrize("one", [engine(8, node=4), engine(4, ranks=2, node=4)])
def test_engines_that_say_how_large_pods_are_may_be_spread_over_them(one: ModelNeed) -> None:
    assert found(one, gpus={"h200": {"gpus_per_pod": 4}}) == {"gpu-h200": (4, 2, 2)}


def test_without_a_size_pods_hold_every_engine_even_of_a_model_that_sleeps() -> None:
    assert found(need(1), engine(8, low=0)) == {"gpu-h200": (8, 1, 2)}


def test_without_a_size_pods_are_no_larger_than_nodes() -> None:
    assert found(engine(4, node=4), engine(4, node=4)) == {"gpu-h200": (4, 2, 2)}


def test_engines_of_a_replica_are_packed_one_by_one() -> None:
    assert found(engine(5, ranks=4)) == {"gpu-h200": (8, 4, 4)}
    assert found(engine(1, ranks=8)) == {"gpu-h200": (8, 1, 1)}
