"""Which model a name leads to, who takes over, and what clients are told of names that end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.routing import Arm, Failure, RoutingConfig
from serving.errors import (
    ComptoirError,
    ContextLengthError,
    EngineFailedError,
    EngineTimeoutError,
    ModelNotFoundError,
    ModelUnavailableError,
    PermissionDeniedError,
    RateLimitedError,
    UnsupportedEndpointError,
)
from serving.routing.directory import Directory, Model
from serving.routing.features import RequestFeatures
from serving.routing.models import (
    FAILURES,
    ModelRouter,
    Route,
    deprecation_headers,
    draw_arm,
    failure_of,
    sticky_key,
    unknown_models,
)
from serving.routing.rules import MAX_CANDIDATES

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(unhurried, max_examples=20)

TODAY = date(2026, 7, 1)
PLAIN = RequestFeatures("chat")


def directory(*names: str, **cards: dict[str, Any]) -> Directory:
    return Directory(
        [Model(name, {"task": "chat"}) for name in names]
        + [Model(name, {"task": "chat"} | card) for name, card in cards.items()]
    )


def router(**fields: Any) -> ModelRouter:
    return ModelRouter(RoutingConfig.model_validate(fields))


def route(
    one: ModelRouter,
    name: str,
    known: Directory,
    *,
    features: RequestFeatures | None = PLAIN,
    may_use: Callable[[str], bool] = lambda name: True,
    key: str = "k",
    today: date = TODAY,
    tasks: Collection[str] = ("chat",),
) -> Route:
    return one.route(name, features, known, may_use, key, today, tasks)


def names(found: Route) -> list[str]:
    return [candidate.served_name for candidate in found.candidates]


# ---- names that need no configuration ----------------------------------------------------------------


def test_without_configuration_a_model_answers_to_its_own_names() -> None:
    known = directory(m={"aliases": ["fast"], "adapters": ["tuned"]})
    for name, served in (("m", "m"), ("fast", "m"), ("tuned", "tuned")):
        found = route(router(), name, known, features=None)
        assert [(one.model_id, one.served_name, one.reason) for one in found.candidates] == [
            ("m", served, "named")
        ]
        assert found.next({}) == found.candidates[0]
        assert found.next({served: "unhealthy"}) is None
        assert deprecation_headers(found) == {}


def test_an_unknown_name_is_404_and_is_not_repeated() -> None:
    for may_use in (lambda name: True, lambda name: False):
        with pytest.raises(ModelNotFoundError) as raised:
            route(router(aliases={"a": "m"}), "canary", directory("m"), may_use=may_use)
        assert "canary" not in raised.value.message
        assert raised.value.param == "model"


def test_auto_without_rules_is_a_name_like_any_other() -> None:
    with pytest.raises(ModelNotFoundError):
        route(router(), "auto", directory("m"))
    assert names(route(router(), "auto", directory("auto"))) == ["auto"]


def test_a_model_that_the_key_does_not_allow_is_403() -> None:
    with pytest.raises(PermissionDeniedError):
        route(router(), "m", directory("m"), may_use=lambda name: False)


def test_an_adapter_is_allowed_by_its_own_name() -> None:
    known = directory(m={"adapters": ["tuned"]})
    assert names(route(router(), "tuned", known, may_use={"tuned"}.__contains__)) == ["tuned"]
    with pytest.raises(PermissionDeniedError):
        route(router(), "tuned", known, may_use={"m"}.__contains__)


def test_a_model_with_another_task_does_not_serve_the_endpoint() -> None:
    known = directory(e={"task": "embed"}, new={"task": None})
    with pytest.raises(UnsupportedEndpointError):
        route(router(), "e", known)
    assert names(route(router(), "e", known, tasks=["embed"])) == ["e"]
    assert names(route(router(), "e", known, tasks=[])) == ["e"]
    assert names(route(router(), "new", known)) == ["new"]


# ---- aliases -----------------------------------------------------------------------------------------

CANARY = {"aliases": {"chat": [{"model": "old", "weight": 95}, {"model": "new", "weight": 5}]}}


def share(one: ModelRouter, known: Directory, **options: Any) -> Counter[str | None]:
    return Counter(route(one, "chat", known, key=f"k{n}", **options).arm for n in range(4000))


def test_an_alias_leads_to_one_of_its_arms_and_says_so() -> None:
    found = route(router(**CANARY), "chat", directory("old", "new"))
    assert found.alias == "chat"
    assert found.arm in ("old", "new")
    assert names(found) == [found.arm]
    assert found.candidates[0].reason == "alias"


def test_a_canary_gets_its_share_of_the_keys() -> None:
    counted = share(router(**CANARY), directory("old", "new"))
    # Five standard deviations of a binomial distribution.
    assert abs(counted["new"] - 200) < 5 * math.sqrt(4000 * 0.05 * 0.95)


def test_an_alias_comes_before_a_model_of_the_same_name() -> None:
    one = router(aliases={"old": [{"model": "new"}]})
    assert names(route(one, "old", directory("old", "new"))) == ["new"]
    # An arm is always a model, so a model's own name can be shared out.
    shared = router(aliases={"old": [{"model": "old", "weight": 9}, {"model": "new"}]})
    assert names(route(shared, "old", directory("old"))) == ["old"]


@pytest.mark.parametrize(
    ("known", "options", "why"),
    [
        (directory("old"), {}, "it is not deployed"),
        (
            directory("old", "new"),
            {"may_use": {"old"}.__contains__},
            "the key does not allow it",
        ),
        (directory("old", new={"task": "embed"}), {}, "its task is not the endpoint's"),
    ],
)
def test_an_arm_that_cannot_answer_leaves_its_share_to_the_others(
    known: Directory, options: dict[str, Any], why: str
) -> None:
    one = router(aliases={"chat": [{"model": "old"}, {"model": "new", "weight": 99}]})
    assert set(share(one, known, **options)) == {"old"}
    skipped = route(one, "chat", known, **options).skipped
    assert [(entry.name, entry.why) for entry in skipped] == [("new", why)]


def test_a_retired_arm_gets_nothing_from_that_day_on() -> None:
    one = router(**CANARY, models={"old": {"retired_on": "2026-07-02"}})
    assert set(share(one, directory("old", "new"))) == {"old", "new"}
    assert set(share(one, directory("old", "new"), today=date(2026, 7, 2))) == {"new"}


@pytest.mark.parametrize(
    ("known", "allowed", "error"),
    [
        (directory("old", "new"), [], PermissionDeniedError),
        (directory("old"), ["new"], ModelUnavailableError),
        (directory(), ["old", "new"], ModelUnavailableError),
        (directory(), [], PermissionDeniedError),
    ],
)
def test_an_alias_of_which_no_arm_is_left_is_known_all_the_same(
    known: Directory, allowed: list[str], error: type[ComptoirError]
) -> None:
    with pytest.raises(error) as raised:
        route(router(**CANARY), "chat", known, may_use=allowed.__contains__)
    assert (raised.value.retry_after_s is not None) == (error is ModelUnavailableError)


ARMS = st.dictionaries(
    st.sampled_from("abcdef"), st.floats(0.01, 100, allow_nan=False), min_size=1, max_size=6
).map(lambda weights: [Arm(model=name, weight=weight) for name, weight in weights.items()])
KEYS = [f"key-{number}" for number in range(2000)]


def drawn(arms: Iterable[Arm], salt: str = "") -> list[str]:
    return [draw_arm("alias", tuple(arms), salt + key).model for key in KEYS]


@few
@given(ARMS, st.text(max_size=5))
def test_weights_are_met(arms: list[Arm], salt: str) -> None:
    counted = Counter(drawn(arms, salt))
    total = sum(arm.weight for arm in arms)
    for arm in arms:
        wanted = arm.weight / total
        # Six standard deviations, and six keys for shares so small that they are not normally distributed.
        margin = 6 * math.sqrt(len(KEYS) * wanted * (1 - wanted)) + 6
        assert abs(counted[arm.model] - len(KEYS) * wanted) <= margin


@few
@given(ARMS.flatmap(lambda arms: st.tuples(st.just(arms), st.permutations(arms))))
def test_a_key_keeps_its_arm_whatever_the_order_and_the_scale(
    orders: tuple[list[Arm], list[Arm]],
) -> None:
    arms, shuffled = orders
    doubled = [Arm(model=arm.model, weight=arm.weight * 2) for arm in shuffled]
    assert drawn(arms) == drawn(shuffled) == drawn(doubled)


@few
@given(ARMS, st.integers(0, 5), st.floats(0.01, 100))
def test_when_a_weight_changes_keys_move_only_to_or_from_that_arm(
    arms: list[Arm], which: int, weight: float
) -> None:
    index = which % len(arms)
    changed = [
        Arm(model=arm.model, weight=weight) if number == index else arm
        for number, arm in enumerate(arms)
    ]
    name, before, after = arms[index].model, drawn(arms), drawn(changed)
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    grows = weight > arms[index].weight
    assert all((other if grows else one) == name for one, other in moved)
    # So many as the share changed, and no more.
    assert len(moved) == abs(before.count(name) - after.count(name))


def test_raising_a_canary_from_5_to_10_percent_moves_5_percent_of_the_keys() -> None:
    def shares(old: float, new: float) -> list[str]:
        return drawn([Arm(model="old", weight=old), Arm(model="new", weight=new)])

    before, after = shares(95, 5), shares(90, 10)
    moved = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert set(moved) == {("old", "new")}
    assert len(moved) == pytest.approx(100, abs=50)


def test_another_alias_draws_anew() -> None:
    arms = [Arm(model="a"), Arm(model="b")]
    same = sum(draw_arm("x", arms, key) == draw_arm("y", arms, key) for key in KEYS)
    assert 800 < same < 1200


def test_a_session_sticks_more_finely_than_a_user_and_a_user_more_than_a_key() -> None:
    assert sticky_key("acme", "s", "u") == sticky_key("acme", "s", "v")
    assert sticky_key("acme", None, "u") != sticky_key("acme", None, "v")
    assert sticky_key("acme") == sticky_key("acme", "", "")
    everyone = [
        sticky_key("acme"),
        sticky_key("acme", "x"),
        sticky_key("acme", None, "x"),
        sticky_key("other", "x"),
        sticky_key("other"),
    ]
    assert len(set(everyone)) == len(everyone)


# ---- lifetimes ---------------------------------------------------------------------------------------

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


# ---- fallbacks ---------------------------------------------------------------------------------------


def chain(**fallbacks: Any) -> ModelRouter:
    return router(fallbacks=fallbacks)


def test_a_fallback_takes_over_after_the_failures_it_is_for() -> None:
    one = chain(a={"to": ["b", "c"], "after": ["saturated", "context"]})
    found = route(one, "a", directory("a", "b", "c"))
    assert names(found) == ["a", "b", "c"]
    assert [one.reason for one in found.candidates] == ["named", "fallback", "fallback"]
    failures: dict[str, Failure] = {"a": "unhealthy"}
    assert found.next(failures) is None
    failures = {"a": "saturated"}
    assert found.next(failures) == found.candidates[1]
    # However the stand-in failed, the list was for the failure of the first.
    failures["b"] = "unhealthy"
    assert found.next(failures) == found.candidates[2]
    failures["c"] = "saturated"
    assert found.next(failures) is None


def test_a_fallback_may_have_fallbacks_of_its_own() -> None:
    one = chain(a={"to": ["b", "c"], "after": ["unhealthy"]}, b={"to": ["d"], "after": ["context"]})
    found = route(one, "a", directory(*"abcd"))
    assert names(found) == ["a", "b", "c", "d"]
    failures: dict[str, Failure] = {"a": "unhealthy", "b": "context", "c": "saturated"}
    assert found.next(failures) == found.candidates[3]
    # It is there for b's context, not for a's health.
    failures = {"a": "unhealthy", "b": "unhealthy", "c": "unhealthy"}
    assert found.next(failures) is None


def test_a_model_that_several_fall_back_to_stands_there_once_and_for_each() -> None:
    one = chain(
        a={"to": ["b", "c"], "after": ["unhealthy"]},
        b={"to": ["d"], "after": ["context"]},
        c={"to": ["d"], "after": ["saturated"]},
    )
    found = route(one, "a", directory(*"abcd"))
    assert names(found) == ["a", "b", "c", "d"]
    assert found.candidates[3].takes_over == {"b": {"context"}, "c": {"saturated"}}


@pytest.mark.parametrize(
    ("known", "options"),
    [
        (directory("a", "c"), {}),
        (directory("a", "b", "c"), {"may_use": {"a", "c"}.__contains__}),
        (directory("a", "c", b={"task": "embed"}), {}),
    ],
)
def test_a_fallback_that_cannot_answer_is_passed_over(
    known: Directory, options: dict[str, Any]
) -> None:
    assert names(route(chain(a={"to": ["b", "c"]}), "a", known, **options)) == ["a", "c"]


def test_a_model_that_is_not_deployed_counts_as_unhealthy() -> None:
    one = chain(a={"to": ["b", "c"]})
    found = route(one, "a", directory("b", "c"))
    assert names(found) == ["b", "c"]
    assert found.next({}) == found.candidates[0]
    with pytest.raises(ModelUnavailableError):
        route(chain(a={"to": ["b"], "after": ["context"]}), "a", directory("b"))
    with pytest.raises(ModelUnavailableError):
        route(one, "a", directory("x"))


def test_the_fallback_of_one_that_is_not_deployed_takes_its_place() -> None:
    one = chain(a={"to": ["b", "c"], "after": ["saturated"]}, b={"to": ["d"]})
    found = route(one, "a", directory("a", "c", "d"))
    assert names(found) == ["a", "d", "c"]
    assert found.candidates[1].takes_over == {"a": {"saturated"}}


def test_many_ways_through_models_that_are_not_deployed_cost_one_look_each() -> None:
    ladder = {
        f"{side}{step}": {"to": [f"a{step + 1}", f"b{step + 1}"]}
        for step in range(40)
        for side in "ab"
    }
    assert names(route(chain(**ladder), "a0", directory("b40"))) == ["b40"]


def test_fallbacks_answer_failures_and_not_a_missing_permission() -> None:
    one = router(fallbacks={"a": {"to": ["b"]}}, aliases={"chat": "a"})
    for known in (directory("a", "b"), directory("b")):
        for name in ("a", "chat"):
            with pytest.raises(PermissionDeniedError):
                route(one, name, known, may_use={"b"}.__contains__)


def test_an_arm_has_the_fallbacks_of_its_model() -> None:
    one = router(aliases={"chat": "a"}, fallbacks={"a": {"to": ["b"]}})
    assert names(route(one, "chat", directory("a", "b"))) == ["a", "b"]
    assert names(route(one, "chat", directory("b"))) == ["b"]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ModelUnavailableError("x"), "unhealthy"),
        (EngineTimeoutError("x"), "unhealthy"),
        (ContextLengthError("x"), "context"),
        (EngineFailedError("x"), None),
        (RateLimitedError("x"), None),
        (PermissionDeniedError("x"), None),
    ],
)
def test_what_another_model_may_try(error: ComptoirError, failure: Failure | None) -> None:
    assert failure_of(error) == failure


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


# ---- checking ----------------------------------------------------------------------------------------


def test_names_that_no_model_has_are_reported_with_their_key() -> None:
    config = RoutingConfig.model_validate(
        {
            "aliases": {
                "ok": "m",
                "a": "x1",
                "e": {"arms": [{"model": "m"}], "retired_on": "2026-01-01", "successor": "x2"},
            },
            "models": {
                "m": {"retired_on": "2026-01-01", "successor": "ok"},
                "x3": {"cost": 1},
                "ended": {"retired_on": "2026-01-01", "successor": "auto"},
            },
            "fallbacks": {"m": {"to": ["x4"]}, "x5": {"to": ["m"]}},
            "auto": [{"name": "default", "models": ["x6", "m"]}],
        }
    )
    problems = unknown_models(config, {"m"})
    assert [text.partition(":")[0] for text in problems] == [
        "routing.aliases.a",
        "routing.models.x3",
        "routing.fallbacks.x5",
        "routing.fallbacks.m.to",
        "routing.auto.default",
        "routing.aliases.e.successor",
    ]
    assert all(
        f"'x{number}'" in text for number, text in zip((1, 3, 5, 4, 6, 2), problems, strict=True)
    )
    assert unknown_models(RoutingConfig(), set()) == []
