from __future__ import annotations

import math
from pathlib import Path

import pytest

from loadtests.bench.compare.cells import QUICK, STANDARD
from loadtests.bench.compare.contenders import CONTENDERS
from loadtests.bench.compare.picture import COLOURS, Chart, chart_of, copy, draw
from loadtests.bench.compare.results import Results

NAMES = ["vllm", "ray", "comptoir"]


def figures(rate: float) -> dict[str, float]:
    return {"requests_per_s": rate, "ttft_p50_ms": 1000 / rate}


@pytest.fixture
def results() -> Results:
    found = Results()
    for cell in STANDARD:
        found.add("comptoir", cell, "own", figures(90.0), figures(100.0))
    return found


def test_only_streams_of_the_usual_length_are_drawn(results: Results) -> None:
    chart = chart_of(results, STANDARD, NAMES, "note")
    assert chart is not None
    assert chart.streams == (1, 16, 64, 256)
    assert [one.name for one in chart.series] == ["vllm", "comptoir"]
    assert chart.series[1].ratios == (0.9, 0.9, 0.9, 0.9)


def test_without_a_baseline_there_are_no_ratios() -> None:
    alone = Results()
    alone.add("comptoir", QUICK[0], "own", figures(90.0))
    chart = chart_of(alone, QUICK, NAMES, "note")
    assert chart is not None
    assert all(map(math.isnan, chart.series[0].ratios))


def test_nothing_measured_is_nothing_drawn() -> None:
    assert chart_of(Results(), STANDARD, NAMES, "note") is None


def test_the_same_figures_give_the_same_file(results: Results, tmp_path: Path) -> None:
    chart = chart_of(results, STANDARD, NAMES, "note")
    assert isinstance(chart, Chart)
    svg, png = draw(chart, tmp_path / "one.json")
    assert (svg.name, png.name) == ("one.svg", "one.png")
    again, _ = draw(chart, tmp_path / "two.json")
    assert svg.read_bytes() == again.read_bytes()
    copy([svg, png], tmp_path / "docs" / "picture.png")
    assert (tmp_path / "docs" / "picture.png").read_bytes() == png.read_bytes()


def test_every_contender_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(CONTENDERS)
    assert len(set(COLOURS.values())) == len(COLOURS)
