"""What a plan file may say, and what is said of one that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.plan.model import Span, grid_table, price_table
from serving.catalogue.jurisdictions import normalise
from serving.errors import ConfigError
from tests.loadtests.plan.helpers import config, traffic


def test_a_number_stands_for_all_three_ends() -> None:
    plan = config(users=100)
    assert plan.users == Span(low=100, typical=100, high=100)
    assert plan.users.is_exact
    # YAML takes 1e15 for text.
    assert config(users="1e15").users == Span(low=1e15, typical=1e15, high=1e15)


def test_growth_over_months_is_compound() -> None:
    assert config(growth={"per_year": 0.5, "months": 24}).growth.factor_at("typical") == 2.25


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"users": -5}, ["users", "above 0, not -5"]),
        ({"users": "1e15x"}, ["users", "must be a number, or a range"]),
        ({"users": "many"}, ["users", "must be a number, or a range"]),
        ({"users": {"low": 3, "typical": 2, "high": 9}}, ["users", "must rise"]),
        ({"active_share": 1.5}, ["active_share", "at most 1, not 1.5"]),
        ({"user": 5}, ["user: unknown key; known:", "users"]),
        ({"utilisation": 0}, ["utilisation"]),
        ({"site": {"country": "ZZ"}}, ["site.country", "'ZZ'", "known: AT, BE", "grid_gco2e"]),
        ({"site": {"country": "FR", "grid_gco2e_per_kwh": 5}}, ["either country or grid_gco2e"]),
        ({"site": {"pue": 0.9}}, ["site.pue", "at least 1"]),
        ({"site": {"eur_per_gpu_hour": {"h1000": 3}}}, ["'h1000' is unknown", "h100"]),
        ({"models": {"other": {}}}, ["models.other", "remove it"]),
        ({"models": {"m": {"gpu": "a100"}}}, ["models.m.gpu", "'a100' is unknown", "l40s"]),
        ({"rate_per_s": 3}, ["either rate_per_s, or users"]),
        ({"growth": {"per_year": 1}}, ["growth", "months need each other"]),
        ({"traffic": []}, ["traffic"]),
        ({"traffic": [traffic(), traffic()]}, ["two classes have the same name"]),
        ({"traffic": [traffic(think_s=None)]}, ["traffic.chat.think_s: is required"]),
        ({"failure_domain": "rack"}, ["failure_domain", "node"]),
    ],
)
def test_what_does_not_fit_is_named_with_its_remedy(
    update: dict[str, object], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**update)
    assert "\n" not in caught.value.message
    for part in said:
        assert part in caught.value.message


def test_a_file_that_is_missing_or_no_mapping_is_named(tmp_path: Path) -> None:
    from loadtests.plan.model import PlanConfig

    with pytest.raises(ConfigError, match="No such file"):
        PlanConfig.load(tmp_path / "none.yaml")
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        PlanConfig.load(file)


def test_the_grid_table_has_one_source_year_and_method_and_known_countries() -> None:
    table = grid_table()
    assert set(table) == {"source", "url", "year", "method", "gco2e_per_kwh"}
    assert all(
        code == normalise(code) and 0 < grams < 1200
        for code, grams in table["gco2e_per_kwh"].items()
    )
    # Norway's code is false in YAML 1.1.
    assert table["gco2e_per_kwh"]["NO"] == 30.75


def test_prices_are_ranges_and_say_that_they_are_assumed() -> None:
    table = price_table()
    assert table["basis"] == "assumption"
    for one in table["gpus"].values():
        assert 0 < one["low"] < one["typical"] < one["high"]
