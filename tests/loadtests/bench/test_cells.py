from __future__ import annotations

import pytest

from loadtests.bench.compare.cells import ALL, QUICK, STANDARD, STREAMS, TOKENS, Cell


@pytest.mark.parametrize("cell", ALL, ids=lambda cell: cell.name)
@pytest.mark.parametrize("rate", [0.0, 7.3, 160.0, 5000.0])
def test_every_stream_has_the_same_number_of_requests_and_more_than_one(
    cell: Cell, rate: float
) -> None:
    count = cell.requests_for(rate, 5.0)
    assert count % cell.streams == 0
    assert count >= 2 * cell.streams


def test_a_burst_is_as_long_as_asked_for_whatever_the_speed() -> None:
    assert Cell(64, 64).requests_for(128.0, 5.0) == 640
    assert Cell(64, 64).requests_for(256.0, 5.0) == 1280


def test_a_trial_has_a_request_for_every_stream() -> None:
    assert [cell.trial_requests for cell in (Cell(1, 64), Cell(256, 64))] == [4, 256]


def test_no_prompt_is_sent_twice() -> None:
    prompts = [p for salt in ("1vllm64x64", "1own64x64") for p in Cell.prompts(salt, 100)]
    assert len(set(prompts)) == len(prompts) == 200


def test_all_cells_are_the_whole_product_and_the_others_are_among_them() -> None:
    assert len(set(ALL)) == 2 * len(STREAMS) * len(TOKENS)
    assert set(QUICK) < set(STANDARD) < set(ALL)


def test_a_name_tells_what_is_streamed() -> None:
    assert [Cell(1, 64).name, Cell(64, 1, False).name] == ["1x64", "64x1 whole"]
