"""The name `auto`: rules over what a request looks like, and what is promised of every route."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.routing import Failure
from serving.discovery.directory import Directory
from serving.errors import (
    ComptoirError,
    ModelNotFoundError,
    ModelUnavailableError,
    PermissionDeniedError,
    UnsupportedEndpointError,
)
from serving.routing.features import RequestFeatures
from serving.routing.router import FAILURES
from serving.routing.search import MAX_CANDIDATES
from tests.routing.model_routes import PLAIN, TODAY, directory, names, route, router

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# ---- auto --------------------------------------------------------------------------------------------

AUTO: dict[str, Any] = {
    "models": {
        "big": {"cost": 3, "capabilities": ["tools", "vision"]},
        "small": {"cost": 1, "capabilities": ["tools"]},
        "plain": {"cost": 2, "capabilities": []},
    },
    "auto": [
        {"name": "german", "when": {"language": ["de"]}, "models": ["plain", "big"]},
        {"name": "tools", "when": {"tools": True}, "choose": {"need": ["tools"]}},
        {"name": "default", "choose": {}},
    ],
}
ALL = directory("big", "small", "plain")
TOOLS = RequestFeatures("chat", tools=1)
GERMAN = RequestFeatures("chat", language="de")


@pytest.mark.parametrize(
    ("features", "rule", "models"),
    [
        (PLAIN, "default", ["small", "plain", "big"]),
        (TOOLS, "tools", ["small", "big"]),
        (GERMAN, "german", ["plain", "big"]),
        (RequestFeatures("chat", images=1), "default", ["big"]),
    ],
)
def test_the_first_rule_that_holds_decides(
    features: RequestFeatures, rule: str, models: list[str]
) -> None:
    found = route(router(**AUTO), "auto", ALL, features=features)
    assert (found.rule, names(found)) == (rule, models)
    assert found.candidates[0].takes_over == {}
    assert all(one.takes_over == {models[0]: FAILURES} for one in found.candidates[1:])
    assert found.verdicts[-1].acts
    assert [one.rule for one in found.verdicts if not one.acts] == [
        one["name"] for one in AUTO["auto"][: len(found.verdicts) - 1]
    ]


def test_only_auto_needs_the_features() -> None:
    one = router(**AUTO, auto_name="best", aliases={"chat": "big"})
    assert [one.needs_features(name) for name in ("best", "auto", "chat", "big")] == [
        True,
        False,
        False,
        False,
    ]
    assert route(one, "best", ALL).rule == "default"
    with pytest.raises(ValueError, match="needs_features"):
        route(one, "best", ALL, features=None)


def test_a_rule_whose_models_are_all_gone_leaves_the_request_to_the_next() -> None:
    found = route(router(**AUTO), "auto", directory("small"), features=GERMAN)
    assert (found.rule, names(found)) == ("default", ["small"])
    assert found.verdicts[0].because.endswith("no model is left")
    assert {one.name for one in found.skipped} == {"big", "plain"}


def test_a_model_that_is_listed_nowhere_is_never_chosen() -> None:
    assert "guard" not in names(route(router(**AUTO), "auto", directory("guard", "plain")))


def test_a_chosen_model_has_its_fallbacks() -> None:
    one = router(**AUTO, fallbacks={"small": {"to": ["other"], "after": ["context"]}})
    found = route(one, "auto", directory("small", "other"))
    assert names(found) == ["small", "other"]
    assert found.candidates[1].takes_over == {"small": {"context"}}


@pytest.mark.parametrize(
    ("known", "features", "allowed", "error"),
    [
        (ALL, PLAIN, [], PermissionDeniedError),
        (directory(), PLAIN, ["big", "small", "plain"], ModelUnavailableError),
        (directory("small"), RequestFeatures("chat", images=1), ["small"], ModelNotFoundError),
        (
            directory(big={"task": "embed"}, small={"task": "embed"}, plain={"task": "embed"}),
            PLAIN,
            ["big", "small", "plain"],
            UnsupportedEndpointError,
        ),
    ],
)
def test_where_no_rule_finds_a_model_the_error_says_why(
    known: Directory, features: RequestFeatures, allowed: list[str], error: type[ComptoirError]
) -> None:
    with pytest.raises(error) as raised:
        route(router(**AUTO), "auto", known, features=features, may_use=allowed.__contains__)
    if error is ModelNotFoundError:
        assert raised.value.message.endswith("needs: vision")


def test_a_retired_model_is_not_chosen() -> None:
    models = AUTO["models"] | {"small": AUTO["models"]["small"] | {"retired_on": "2026-07-01"}}
    assert "small" not in names(route(router(**AUTO | {"models": models}), "auto", ALL))


def test_names_lists_what_the_caller_can_use() -> None:
    aliases = {
        "chat": "big",
        "ended": {"arms": [{"model": "big"}], "retired_on": "2026-01-01"},
        "gone": "nowhere",
        "quick": [{"model": "small"}, {"model": "plain"}],
    }
    one = router(**AUTO, aliases=aliases)
    assert one.names(ALL, lambda name: True, TODAY) == ("chat", "quick", "auto")
    assert one.names(ALL, {"plain"}.__contains__, TODAY) == ("quick", "auto")
    assert one.names(directory("x"), lambda name: True, TODAY) == ()
    assert router(aliases={"chat": "big"}).names(ALL, lambda name: True, TODAY) == ("chat",)


# ---- what is promised of every route -------------------------------------------------------------------

IDS = "abcdefgh"
IDS_ANY = st.sampled_from(IDS)
# A model falls back only to later ones, so that there are no circles.
FALLBACKS = st.dictionaries(
    st.sampled_from(IDS[:-1]),
    st.tuples(st.sets(IDS_ANY, min_size=1, max_size=4), st.sets(st.sampled_from(sorted(FAILURES)))),
    max_size=7,
).map(
    lambda drawn: {
        name: {"to": sorted(to for to in tos if to > name), "after": sorted(on) or ["context"]}
        for name, (tos, on) in drawn.items()
        if any(to > name for to in tos)
    }
)


@unhurried
@given(
    FALLBACKS,
    st.sets(IDS_ANY),
    st.sets(IDS_ANY),
    st.sets(IDS_ANY),
    st.sampled_from([*IDS, "alias", "auto", "nothing"]),
    st.text(max_size=4),
    st.data(),
)
def test_a_route_is_never_empty_never_repeats_and_never_leads_where_the_caller_may_not_go(
    fallbacks: dict[str, Any],
    deployed: set[str],
    allowed: set[str],
    retired: set[str],
    name: str,
    key: str,
    data: st.DataObject,
) -> None:
    one = router(
        fallbacks=fallbacks,
        aliases={"alias": [{"model": model, "weight": 2} for model in "abc"]},
        models={model: {"retired_on": "2026-01-01"} for model in retired} or {"a": {}},
        auto=[{"name": "default", "choose": {}}],
    )
    known = directory(*sorted(deployed))
    try:
        found = route(one, name, known, may_use=allowed.__contains__, key=key)
    except (ModelNotFoundError, ModelUnavailableError, PermissionDeniedError):
        return
    served = names(found)
    assert 1 <= len(served) <= MAX_CANDIDATES
    assert len(set(served)) == len(served)
    assert set(served) <= (deployed & allowed) - retired
    assert found == route(one, name, known, may_use=allowed.__contains__, key=key)
    # Whatever happens, each is asked at most once and there is an end.
    asked: dict[str, Failure] = {}
    while (candidate := found.next(asked)) is not None:
        assert candidate.served_name not in asked
        asked[candidate.served_name] = data.draw(st.sampled_from(sorted(FAILURES)))
    assert served[0] in asked
