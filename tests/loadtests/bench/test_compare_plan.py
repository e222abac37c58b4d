from __future__ import annotations

from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.plan import TURNS, ComparePlan

CELLS = (Cell(1, 64), Cell(64, 64, False))
BOTH = ("vllm", "own")


def test_everybody_has_a_turn_of_their_own() -> None:
    plan = ComparePlan(("vllm", "ray", "comptoir"), CELLS, BOTH, rounds=2)
    assert plan.baseline is None
    assert plan.challengers == ["vllm", "ray", "comptoir"]
    # Two clients for the stream, one for what is not streamed.
    assert plan.bursts == 3
    assert plan.steps == 2 * 3 * (1 + 3)
    assert plan.bursts_in_all == 2


def test_in_pairs_the_baseline_starts_once_a_round_and_is_measured_beside_everybody() -> None:
    plan = ComparePlan(("vllm", "ray", "comptoir"), CELLS, BOTH, rounds=2, paired=True)
    assert plan.baseline == "vllm"
    assert plan.challengers == ["ray", "comptoir"]
    assert plan.bursts == 3 * TURNS
    assert plan.steps == 2 * (3 + 2 * plan.bursts)
    assert plan.bursts_in_all == 2 * TURNS
