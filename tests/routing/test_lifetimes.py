"""A model or an alias that ends: what clients are told before, and after."""

from __future__ import annotations

from datetime import date

import pytest

from serving.errors import (
    ModelNotFoundError,
    PermissionDeniedError,
)
from serving.routing.lifetimes import deprecation_headers
from tests.routing.model_routes import directory, names, route, router

ENDING = {
    "deprecated_on": "2026-08-01",
    "retired_on": "2026-11-30",
    "successor": "vendor/next",
}


@pytest.mark.parametrize("kind", ["models", "aliases"])
def test_the_dates_of_a_name_become_headers(kind: str) -> None:
    entry = ENDING | ({"arms": [{"model": "n"}]} if kind == "aliases" else {})
    found = route(router(**{kind: {"m": entry}}), "m", directory("m", "n"))
    assert deprecation_headers(found) == {
        "deprecation": "@1785542400",
        "sunset": "Mon, 30 Nov 2026 00:00:00 GMT",
        "link": '</v1/models/vendor/next>; rel="successor-version"',
    }


def test_only_what_is_known_is_sent() -> None:
    one = router(models={"m": {"retired_on": "2026-11-30"}, "n": {"cost": 1}})
    assert set(deprecation_headers(route(one, "m", directory("m", "n")))) == {"sunset"}
    assert deprecation_headers(route(one, "n", directory("m", "n"))) == {}


def test_another_name_of_an_ending_model_ends_with_it() -> None:
    one = router(models={"m": ENDING})
    known = directory(m={"aliases": ["fast"], "adapters": ["tuned"]})
    assert "sunset" in deprecation_headers(route(one, "fast", known))
    assert deprecation_headers(route(one, "tuned", known)) == {}


def test_an_alias_says_nothing_of_its_arms_ends() -> None:
    one = router(aliases={"chat": "m"}, models={"m": ENDING})
    assert deprecation_headers(route(one, "chat", directory("m"))) == {}


@pytest.mark.parametrize("deployed", [True, False])
def test_from_the_day_on_a_retired_model_is_refused_with_its_successor(deployed: bool) -> None:
    one = router(models={"m": ENDING})
    known = directory("m", "n") if deployed else directory("n")
    if deployed:
        assert names(route(one, "m", known, today=date(2026, 11, 29))) == ["m"]
    with pytest.raises(ModelNotFoundError) as raised:
        route(one, "m", known, today=date(2026, 11, 30))
    assert raised.value.message == "this model was retired on 2026-11-30; use 'vendor/next' instead"


@pytest.mark.parametrize("name", ["m", "chat"])
def test_what_follows_a_retired_model_is_told_to_those_only_who_might_use_it(name: str) -> None:
    one = router(models={"m": ENDING}, aliases={"chat": ENDING | {"arms": [{"model": "m"}]}})
    with pytest.raises(PermissionDeniedError) as raised:
        route(one, name, directory("m", "n"), today=date(2027, 1, 1), may_use="n".__eq__)
    assert "next" not in raised.value.message


def test_a_retired_alias_is_refused_too() -> None:
    one = router(aliases={"chat": ENDING | {"arms": [{"model": "m"}]}})
    with pytest.raises(ModelNotFoundError, match="use 'vendor/next'"):
        route(one, "chat", directory("m"), today=date(2027, 1, 1))


def test_an_alias_whose_arms_are_all_retired_names_their_successor() -> None:
    one = router(aliases={"chat": "m"}, models={"m": ENDING})
    with pytest.raises(ModelNotFoundError, match="use 'vendor/next'"):
        route(one, "chat", directory("m"), today=date(2027, 1, 1))


def test_a_successor_that_is_retired_itself_is_followed() -> None:
    one = router(
        models={
            "a": {"retired_on": "2026-01-01", "successor": "b"},
            "b": {"retired_on": "2026-02-01", "successor": "c"},
        },
        aliases={"c": {"arms": [{"model": "x"}], "retired_on": "2026-03-01", "successor": "d"}},
    )
    with pytest.raises(ModelNotFoundError, match="use 'd' instead"):
        route(one, "a", directory("x"))


def test_a_retired_model_without_a_successor_points_to_the_list() -> None:
    one = router(models={"m": {"retired_on": "2026-01-01"}})
    with pytest.raises(ModelNotFoundError, match="GET /v1/models"):
        route(one, "m", directory("m"))
