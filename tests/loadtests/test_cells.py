from __future__ import annotations

import pytest

from loadtests.bench.compare.cells import ALL, QUICK, STANDARD, STREAMS, TOKENS, Cell


@pytest.mark.parametrize("cell", ALL, ids=lambda cell: cell.name)
def test_every_stream_has_the_same_number_of_requests_and_more_than_one(cell: Cell) -> None:
    assert cell.requests % cell.streams == 0
    assert cell.requests >= 2 * cell.streams


def test_no_prompt_is_sent_twice() -> None:
    prompts = [
        prompt for salt in ("1vllm64x64", "1own64x64") for prompt in Cell(64, 64).prompts(salt)
    ]
    assert len(set(prompts)) == len(prompts) == 2 * Cell(64, 64).requests


def test_all_cells_are_the_whole_product_and_the_others_are_among_them() -> None:
    assert len(set(ALL)) == 2 * len(STREAMS) * len(TOKENS)
    assert set(QUICK) < set(STANDARD) < set(ALL)


def test_a_name_tells_what_is_streamed() -> None:
    assert [Cell(1, 64).name, Cell(64, 1, False).name] == ["1x64", "64x1 whole"]
