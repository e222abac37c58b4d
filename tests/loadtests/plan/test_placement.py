"""Replicas on nodes: losing what may fail leaves enough."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.plan.placement import place


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(st.integers(1, 12), st.sampled_from([1, 2, 3, 4, 8, 16])),
        min_size=1,
    ),
    st.integers(0, 2),
)
def test_losing_nodes_leaves_enough_and_everything_fits(
    models: dict[str, tuple[int, int]], spares: int
) -> None:
    needed = {name: count for name, (count, _) in models.items()}
    gpus = {name: each for name, (_, each) in models.items()}
    placed, nodes = place(needed, gpus, 8, spares, "node")
    for name, one in placed.items():
        assert one.total - spares * one.most_on_a_node >= needed[name]
    assert sum(one.total * gpus[name] for name, one in placed.items()) <= 8 * nodes


def test_a_spare_replica_is_one_more() -> None:
    placed, nodes = place({"a": 5}, {"a": 2}, 8, 1, "replica")
    assert (placed["a"].total, placed["a"].spare, nodes) == (6, 1, 2)


@pytest.mark.parametrize(
    ("needed", "total", "nodes"), [(1, 2, 2), (4, 8, 2), (8, 12, 3), (12, 16, 4)]
)
def test_a_spare_node_holds_what_the_fullest_node_does(needed: int, total: int, nodes: int) -> None:
    # Two GPUs each: four replicas fit on a node, and as few nodes as possible are taken.
    placed, used = place({"a": needed}, {"a": 2}, 8, 1, "node")
    assert placed["a"].total - placed["a"].most_on_a_node >= needed
    assert (placed["a"].total, used) == (total, nodes)


def test_a_replica_larger_than_a_node_takes_whole_ones() -> None:
    placed, nodes = place({"a": 2}, {"a": 16}, 8, 1, "node")
    assert (placed["a"].total, nodes) == (3, 6)


def test_models_share_nodes() -> None:
    _, nodes = place({"a": 1, "b": 1}, {"a": 4, "b": 4}, 8, 0, "replica")
    assert nodes == math.ceil(8 / 8)
