"""Euros, energy and CO2, against arithmetic by hand."""

from __future__ import annotations

import pytest

from loadtests.plan.cost import Fleet, bill
from serving.errors import ConfigError
from tests.loadtests.plan.helpers import config

SITE = {
    "eur_per_gpu_hour": {"h100": 3.0},
    "pue": 1.2,
    "idle_share": 0.1,
    "busy_share": 0.6,
    "overhead_w": 100,
    "hours_per_month": 500,
    "country": "SE",
}


def test_a_month_by_hand() -> None:
    plan = config(site=SITE, mean_share=0.5)
    found = bill(plan, [Fleet("h100", 4, 0.4)], {"chat": 10.0}, {})
    requests = 10 * 0.5 * 3600 * 500
    assert found.input_mtok == pytest.approx(requests * 1000 / 1e6)
    assert found.output_mtok == pytest.approx(requests * 200 / 1e6)
    assert found.eur == pytest.approx(4 * 3 * 500)
    # 700 W: a tenth idle, half of the span between at a load of 0.4; 100 W of server; PUE.
    watts = 4 * (700 * (0.1 + 0.5 * 0.4) + 100) * 1.2
    assert found.kwh == pytest.approx(watts * 500 / 1000)
    assert found.kg_co2e == pytest.approx(watts * 500 / 1000 * 35.82 / 1000)


def test_prices_of_input_and_output_add_up_to_the_bill() -> None:
    found = bill(config(output_weight=5), [Fleet("h100", 4, 0.4)], {"chat": 10.0}, {})
    price = found.eur_per_mtok
    assert price.output == pytest.approx(5 * price.input)
    total = price.input * found.input_mtok + price.output * found.output_mtok
    assert total == pytest.approx(found.eur)
    assert price.mean == pytest.approx(found.eur / (found.input_mtok + found.output_mtok))


def test_an_idle_gpu_draws_power() -> None:
    idle = bill(config(), [Fleet("h100", 1, 0.0)], {"chat": 10.0}, {})
    busy = bill(config(), [Fleet("h100", 1, 1.0)], {"chat": 10.0}, {})
    assert idle.kwh is not None
    assert busy.kwh is not None
    assert 0 < idle.kwh < busy.kwh


def test_without_a_price_of_its_own_the_table_s_range_counts() -> None:
    plan = config(site={})
    low, high = (
        bill(plan, [Fleet("l40s", 1, 0.5)], {"chat": 1.0}, {"eur_per_gpu_hour": level}).eur
        for level in ("low", "high")
    )
    assert (low, high) == (pytest.approx(0.70 * 730), pytest.approx(1.90 * 730))


def test_replicas_without_gpus_need_a_price_and_may_lack_watts() -> None:
    fleet = [Fleet("cpu", 2, 0.5)]
    with pytest.raises(ConfigError, match=r"site\.eur_per_gpu_hour: is required for 'cpu'"):
        bill(config(site={}), fleet, {"chat": 1.0}, {})
    found = bill(config(site={"eur_per_gpu_hour": {"cpu": 0.2}}), fleet, {"chat": 1.0}, {})
    assert found.eur == pytest.approx(2 * 0.2 * 730)
    assert (found.kwh, found.kg_co2e, found.gco2e_per_mtok) == (None, None, None)
