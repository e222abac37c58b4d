from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.catalogue.catalogue import load_catalogue
from serving.catalogue.fit import choose_layout, fit, fit_one
from serving.catalogue.gpus import GPUS
from serving.catalogue.spec import WEIGHT_HEADROOM
from serving.errors import ConfigError
from tests.catalogue.builders import entry, licence

CATALOGUE = load_catalogue()
SEVENTY: dict[str, Any] = {"parameters_total_b": 70, "parameters_active_b": 70}


def test_an_entrys_own_layouts_come_first_in_their_order() -> None:
    spec = entry(**SEVENTY, layouts=["h200 tp4 bf16 recipe", "h200 tp2 bf16"])
    assert choose_layout(spec, GPUS["h200"], 8) == spec.layouts[0]
    assert choose_layout(spec, GPUS["h200"], 2) == spec.layouts[1]


def test_where_no_layout_applies_the_smallest_that_holds_the_weights_is_computed() -> None:
    layout = choose_layout(entry(**SEVENTY), GPUS["h100"], 8)
    assert layout is not None
    assert (layout.gpus, layout.quantisation, layout.source) == (2, "bf16", "computed")


def test_published_weights_are_preferred_to_smaller_ones_that_need_fewer_gpus() -> None:
    spec = entry(**SEVENTY, checkpoints={"fp8": "example/Example-FP8"})
    two, one = choose_layout(spec, GPUS["h100"], 2), choose_layout(spec, GPUS["h100"], 1)
    assert two is not None
    assert two.quantisation == "bf16"
    assert one is not None
    assert one.quantisation == "fp8"


def test_nodes_form_a_pipeline_because_links_end_at_the_node() -> None:
    layout = choose_layout(entry(parameters_total_b=500, parameters_active_b=30), GPUS["h100"], 16)
    assert layout is not None
    assert (layout.tensor_parallel, layout.pipeline_parallel) == (8, 2)


def test_a_model_that_cannot_be_split_eight_ways_is_not() -> None:
    spec = entry(parameters_total_b=230, parameters_active_b=10, tensor_parallel_max=4)
    layout = choose_layout(spec, GPUS["h100"], 8)
    assert layout is not None
    assert (layout.tensor_parallel, layout.pipeline_parallel) == (4, 2)


def test_a_row_counts_replicas_and_what_is_left_for_the_cache() -> None:
    row = fit_one(entry(layouts=["h200 tp2 bf16"]), licence(), GPUS["h200"], 8)
    assert row.fits
    assert row.replicas == 4
    assert row.weights_gib == pytest.approx(13.0, abs=0.1)
    assert row.kv_cache_gib == pytest.approx(2 * 139.8 * 0.9 - 13.0, abs=0.1)


def test_a_model_that_does_not_fit_says_what_it_needs() -> None:
    row = fit_one(entry(**SEVENTY), licence(), GPUS["l40s"], 1)
    assert not row.fits
    assert row.reason == (
        "fp8 weights with headroom need 78 GiB, 1 x l40s have 44 GiB; 2 GPUs would do"
    )


def test_a_row_is_usable_only_if_licence_and_loading_allow() -> None:
    gpu = GPUS["h200"]
    gate = licence(verdict="gate", clause="x")
    assert fit_one(entry(), licence(), gpu, 1).usable
    assert not fit_one(entry(), gate, gpu, 1).usable
    assert not fit_one(entry(needs_remote_code=True), licence(), gpu, 1).usable


def test_the_site_decides_what_the_licence_column_says() -> None:
    def standing(jurisdiction: str) -> str:
        rows = fit(CATALOGUE, "h200", 8, jurisdiction)
        return next(row.licence for row in rows if row.model_id == "hunyuan-7b-instruct")

    assert (standing("EU"), standing("DE"), standing("CH")) == ("no", "no", "gate")


@pytest.mark.parametrize(("gpu", "count"), [("b200", 1), ("h200", 0), ("h200", 5000)])
def test_unknown_gpus_and_impossible_counts_are_refused(gpu: str, count: int) -> None:
    with pytest.raises(ConfigError, match=r"known: l40s, h100, h200|out of range"):
        fit(CATALOGUE, gpu, count)


@settings(deadline=None, max_examples=40)
@given(gpu=st.sampled_from(sorted(GPUS)), count=st.integers(1, 64))
def test_no_row_uses_more_gpus_or_memory_than_there_are(gpu: str, count: int) -> None:
    rows = fit(CATALOGUE, gpu, count)
    assert len(rows) == len(CATALOGUE)
    for row in rows:
        if row.layout is None:
            assert row.reason
            continue
        assert row.layout.gpu == gpu
        assert row.layout.gpus * row.replicas <= count
        assert row.kv_cache_gib is not None
        if not row.layout.tested:
            assert row.weights_gib * WEIGHT_HEADROOM <= row.layout.memory_gib + 0.1


@settings(deadline=None, max_examples=40)
@given(gpu=st.sampled_from(sorted(GPUS)), count=st.integers(1, 63))
def test_what_fits_still_fits_with_one_gpu_more(gpu: str, count: int) -> None:
    def fitting(number: int) -> set[str]:
        return {row.model_id for row in fit(CATALOGUE, gpu, number) if row.fits}

    assert fitting(count) <= fitting(count + 1)
