"""Which model a name leads to, who takes over, and what clients are told of names that end."""

from __future__ import annotations

from typing import Any

import pytest

from serving.config.routing import Failure
from serving.discovery.directory import Directory
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
from serving.routing.lifetimes import deprecation_headers
from serving.routing.router import ModelRouter, failure_of
from tests.routing.model_routes import directory, names, route, router

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
