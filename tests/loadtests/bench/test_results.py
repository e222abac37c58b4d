from __future__ import annotations

import math

import pytest

from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.report import tables
from loadtests.bench.compare.results import CPU_PREFIX, Results, bar_figures, with_cpu
from loadtests.bench.compare.texts import Comparison
from serving.commands.output import as_lines

MANY, ALONE = Cell(64, 64), Cell(1, 64)


def burst(rate: float, ttft_ms: float = 10.0, errors: float = 0.0) -> dict[str, float]:
    return {
        "requests_per_s": rate,
        "tokens_per_s": 64 * rate,
        "tokens": 64_000.0,
        "ttft_p50_ms": ttft_ms,
        "itl_p50_ms": 2.0,
        "errors": errors,
    }


@pytest.fixture
def results() -> Results:
    found = Results()
    # The machine is slow in the last pair.
    for base, rate in ((100.0, 80.0), (110.0, 99.0), (20.0, 16.5)):
        baseline = burst(base, ttft_ms=100)
        found.add("comptoir", MANY, "vllm", burst(rate, ttft_ms=110), baseline)
    found.add("comptoir", MANY, "own", burst(500), burst(1000))
    found.add("comptoir", ALONE, "own", burst(7, ttft_ms=9.5), burst(8, ttft_ms=7))
    return found


def test_a_ratio_is_to_the_burst_beside_it(results: Results) -> None:
    assert results.ratios("comptoir", MANY, "requests_per_s") == pytest.approx([0.8, 0.9, 0.825])
    assert bar_figures(results)["requests_ratio_64x64"] == pytest.approx(0.825)


def test_the_baseline_has_every_burst_that_was_measured_beside_another(results: Results) -> None:
    assert results.medians("vllm", MANY)["requests_per_s"] == 100
    assert results.ratio("vllm", MANY, "requests_per_s") == 1


def test_a_ratio_is_one_of_medians_where_nobody_was_measured_beside_the_other() -> None:
    found = Results()
    for rate in (90.0, 100.0, 300.0):
        found.add("vllm", MANY, "vllm", burst(rate, ttft_ms=rate))
    for rate in (80.0, 90.0, 10.0):
        found.add("comptoir", MANY, "vllm", burst(rate, ttft_ms=rate))
    assert found.ratios("comptoir", MANY, "requests_per_s") == [0.8]
    assert found.added("comptoir", MANY, "ttft_p50_ms") == -20


def test_without_a_baseline_there_is_no_ratio() -> None:
    found = Results()
    found.add("comptoir", MANY, "vllm", burst(80))
    assert math.isnan(found.ratio("comptoir", MANY, "requests_per_s"))
    assert math.isnan(found.ratio("vllm", MANY, "requests_per_s"))


def test_the_neutral_client_decides_wherever_it_has_measured(results: Results) -> None:
    assert results.client_of(MANY) == "vllm"
    assert results.client_of(ALONE) == "own"
    assert results.ratio("comptoir", MANY, "requests_per_s", "own") == 0.5


def test_added_time_to_the_first_token_is_a_difference(results: Results) -> None:
    assert bar_figures(results)["added_ttft_ms_1x64"] == pytest.approx(2.5)


def test_being_ahead_of_ray_needs_all_its_paths_and_the_best_of_them_counts(
    results: Results,
) -> None:
    # In absolute terms the best is slower than Comptoir was on the slow machine.
    for name, base, rate in (("ray", 100.0, 15.0), ("ray-tuned", 40.0, 16.0)):
        results.add(name, MANY, "vllm", burst(rate), burst(base))
    assert math.isnan(bar_figures(results)["ray_lead_64x64"])
    results.add("ray-direct", MANY, "vllm", burst(25.0), burst(100.0))
    assert bar_figures(results)["ray_lead_64x64"] == pytest.approx(0.825 / 0.4)


def test_errors_of_every_round_are_added_up(results: Results) -> None:
    results.add("comptoir", MANY, "vllm", burst(80, errors=2), burst(80, errors=5))
    assert bar_figures(results)["errors"] == 2


def test_texts_that_were_not_compared_are_not_called_the_same(results: Results) -> None:
    assert "different_texts" not in bar_figures(results)
    results.texts += [Comparison(10, 0), Comparison(10, 3)]
    assert bar_figures(results)["different_texts"] == 3


def test_cpu_seconds_are_counted_per_thousand_tokens() -> None:
    found = with_cpu(burst(1), {"engine": 6.4, "client": 3.2})
    assert found[CPU_PREFIX + "engine"] == pytest.approx(0.1)
    assert found[CPU_PREFIX + "client"] == pytest.approx(0.05)


def test_tables_show_medians_and_multiples_and_leave_out_what_was_not_measured(
    results: Results,
) -> None:
    made = tables(results, [MANY, ALONE], ["vllm", "ray", "comptoir"])
    lines = [line for table in made for line in as_lines(table)]
    (row,) = [line for line in lines if line.startswith("Comptoir") and "5,120" in line]
    assert row.split()[3:6] == ["80.0", "0.82", "0.80–0.90"]
    assert "64 streams × 64 tokens (vllm bench serve; ms)" in "\n".join(lines)
    assert "1 stream × 64 tokens (our own client; ms)" in "\n".join(lines)
    assert not [line for line in lines if line.startswith("Ray") and "req" in line]


def test_json_holds_every_pair_of_bursts_and_the_median(results: Results) -> None:
    place = results.as_json()["bursts"]["comptoir"]["64x64"]["vllm"]
    assert place["median"]["requests_per_s"] == 80
    pairs = [
        (one["figures"]["requests_per_s"], one["baseline"]["requests_per_s"])
        for one in place["bursts"]
    ]
    assert pairs == [(80, 100), (99, 110), (16.5, 20)]


def test_bursts_that_others_disturbed_are_counted(results: Results) -> None:
    assert results.disturbed() == 0
    results.add("comptoir", MANY, "own", burst(1) | {"others_cores": 0.5}, burst(1))
    assert results.disturbed() == 1
