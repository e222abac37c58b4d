"""Aliases and lifetimes: shares, keys that stay with their arm, names that end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.routing import Arm
from serving.discovery.directory import Directory
from serving.errors import (
    ComptoirError,
    ModelUnavailableError,
    PermissionDeniedError,
)
from serving.routing.aliases import draw_arm, sticky_key
from serving.routing.router import ModelRouter
from tests.routing.model_routes import directory, names, route, router

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(unhurried, max_examples=20)


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
