from __future__ import annotations

import math

import pytest

from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.report import tables
from loadtests.bench.compare.results import CPU_PREFIX, Results, bar_figures, with_cpu
from loadtests.bench.compare.texts import Comparison

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
    for rate in (90.0, 100.0, 300.0):
        found.add("vllm", MANY, "vllm", burst(rate, ttft_ms=100))
    for rate in (80.0, 90.0, 10.0):
        found.add("comptoir", MANY, "vllm", burst(rate, ttft_ms=110))
    found.add("vllm", MANY, "own", burst(1000))
    found.add("comptoir", MANY, "own", burst(500))
    found.add("vllm", ALONE, "own", burst(8, ttft_ms=7))
    found.add("comptoir", ALONE, "own", burst(7, ttft_ms=9.5))
    return found


def test_a_ratio_is_one_of_medians(results: Results) -> None:
    assert bar_figures(results)["requests_ratio_64x64"] == pytest.approx(0.8)


def test_the_neutral_client_decides_wherever_it_has_measured(results: Results) -> None:
    assert results.client_of(MANY) == "vllm"
    assert results.client_of(ALONE) == "own"
    assert results.ratio("comptoir", MANY, "requests_per_s", "own") == 0.5


def test_added_time_to_the_first_token_is_a_difference(results: Results) -> None:
    assert bar_figures(results)["added_ttft_ms_1x64"] == pytest.approx(2.5)


def test_being_ahead_of_ray_needs_all_its_paths_and_the_best_of_them_counts(
    results: Results,
) -> None:
    for name, rate in (("ray", 15.0), ("ray-tuned", 40.0)):
        results.add(name, MANY, "vllm", burst(rate))
    assert math.isnan(bar_figures(results)["ray_lead_64x64"])
    results.add("ray-direct", MANY, "vllm", burst(20.0))
    assert bar_figures(results)["ray_lead_64x64"] == pytest.approx(2.0)


def test_errors_of_every_round_are_added_up(results: Results) -> None:
    results.add("comptoir", MANY, "vllm", burst(80, errors=2))
    results.add("vllm", MANY, "vllm", burst(80, errors=5))
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
    text = tables(results, [MANY, ALONE], ["vllm", "ray", "comptoir"])
    (row,) = [line for line in text.splitlines() if line.startswith("Comptoir") and "5,120" in line]
    assert row.split()[3:5] == ["80.0", "0.80"]
    assert "64 streams × 64 tokens (vllm bench serve; ms)" in text
    assert "1 stream × 64 tokens (our own client; ms)" in text
    assert not [line for line in text.splitlines() if line.startswith("Ray") and "req" in line]


def test_json_holds_every_round_and_its_median(results: Results) -> None:
    place = results.as_json()["bursts"]["comptoir"]["64x64"]["vllm"]
    assert place["median"]["requests_per_s"] == 80
    assert [one["requests_per_s"] for one in place["rounds"]] == [80, 90, 10]
