"""The small checkers: what passes, what is refused, and that no value is repeated."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import (
    InvalidFieldError,
    MissingFieldError,
    RequestError,
    UnsupportedFieldError,
)
from serving.trust import checks
from serving.trust.checker import exhaust
from serving.trust.checks import (
    STEP_ITEMS,
    Check,
    WrongValueError,
    boolean,
    either,
    filled,
    integer,
    keyed,
    many,
    mapping,
    number,
    one_of,
    shaped,
    text,
)
from serving.trust.leftovers import MAX_MEMBERS, MAX_NAMED, OTHERS, Leftovers
from serving.trust.sifted import selected, words
from serving.trust.sizes import anything

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

HUGE = 10**400


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (boolean, [True, False], [0, 1, "true", None]),
        (text, ["", "a"], [1, True, None, ["a"]]),
        (filled, ["a"], ["", 1]),
        (mapping, [{}, {"a": 1}], [[], "a"]),
        (integer(), [0, -5, 2**63 - 1], [True, 1.0, "1", math.nan, HUGE]),
        (number(0, 1, above=True), [0.1, 1], [0, 0.0, -1]),
        (integer(1, 3), [1, 2, 3], [0, 4, HUGE, -HUGE]),
        (number(0, 2), [0, 0.0, 1.5, 2], [-0.1, 2.1, HUGE, -HUGE, math.inf, math.nan, True, "1"]),
        (one_of("a", "b"), ["a", "b"], ["", "A", 1, ["a"]]),
        (many(text, 1, 2), [["a"], ["a", "b"]], [[], ["a", "b", "c"], "a", [1], {"0": "a"}]),
        (either(text, many(text), "text"), ["a", [], ["a"]], [1, None, [1], {}]),
        (keyed({"a": text}, ("a",)), [{"a": ""}], [{"a": 1}, [], "a"]),
    ],
)
def test_a_checker_takes_what_it_says_and_nothing_else(
    check: Check, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        check(value, "field")
    for value in bad:
        with pytest.raises(InvalidFieldError) as raised:
            check(value, "field")
        assert raised.value.param is not None
        assert raised.value.param.startswith("field")


def test_an_element_is_named_by_its_place() -> None:
    with pytest.raises(InvalidFieldError) as raised:
        many(keyed({"n": many(integer())}))([{}, {"n": [1, "x"]}], "a")
    assert raised.value.param == "a[1].n[1]"


def test_null_counts_as_absent() -> None:
    keyed({"a": text})({"a": None}, "body")
    with pytest.raises(MissingFieldError) as raised:
        keyed({"a": text}, ("a",))({"a": None}, "body")
    assert raised.value.param == "body.a"


@pytest.mark.parametrize("name", ["a canary", "canary" * 10, "", "cänary", "1canary"])
def test_an_unknown_member_is_refused_without_a_name_that_may_be_content(name: str) -> None:
    with pytest.raises(UnsupportedFieldError) as raised:
        keyed({"good": text})({name: 1}, "outer.inner")
    assert raised.value.param == "outer.inner"
    assert "good" in raised.value.message
    assert not name or name not in raised.value.message


def test_an_unknown_member_that_looks_like_a_field_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFieldError) as raised:
        many(keyed({"good": text}))([{"good": "a"}, {"prefix": 1}], "outer")
    assert raised.value.param == "outer[1].prefix"
    assert "'outer[1].prefix' is no field" in raised.value.message


def left_of(check: Check, value: Any) -> tuple[Any, list[str]]:
    """The value without what is left out of it, and where that stood."""
    left = Leftovers()
    exhaust(check.in_steps(value, left))
    check(value, "again")
    return value, list(left.named)


def test_what_is_unknown_is_left_out_and_named_once_by_its_place() -> None:
    item = keyed({"role": text, "calls": many(keyed({"id": text, "none": text}))})
    check = keyed({"items": many(item)})
    value = {
        "items": [
            {"role": "a", "prefix": True},
            {"role": "b", "prefix": [1] * 9, "calls": [{"id": "1", "async": 1, "none": None}]},
            {"role": "c", "": 1, "two words": {"deep": 1}, "gone": None},
        ],
        "other": {},
    }
    kept = {"items": [{"role": "a"}, {"role": "b", "calls": [{"id": "1"}]}, {"role": "c"}]}
    assert left_of(check, value) == (
        kept,
        ["other", "items[].prefix", "items[].calls[].async", OTHERS],
    )


def test_no_more_is_named_than_a_header_holds() -> None:
    value = {f"field_{number}": 1 for number in range(1000)}
    kept, named = left_of(keyed({"a": text}), value)
    assert kept == {}
    assert named == [*(f"field_{number}" for number in range(MAX_NAMED)), OTHERS]


def test_tools_that_others_run_are_left_out_and_named_by_their_type() -> None:
    tools = selected(("function",), keyed({"type": text, "name": text}, ("type", "name")), 4)
    value = [
        {"type": "web_search", "size": "medium"},
        {"type": "function", "name": "f", "x": 1},
        {"type": "two words"},
    ]
    kept, named = left_of(tools, value)
    assert kept == [{"type": "function", "name": "f"}]
    assert named == ["[web_search]", OTHERS, "[].x"]
    for wrong in ([{"name": "f"}], [{"type": 1}], ["f"], [{"type": "web_search"}] * 5):
        with pytest.raises(WrongValueError):
            exhaust(tools.in_steps(wrong, Leftovers()))
    with pytest.raises(RequestError):
        tools([{"type": "web_search"}], "tools")


def test_words_that_others_know_are_left_out() -> None:
    kept, named = left_of(words("usage", high=3), ["usage", "file_search.results", "usage"])
    assert kept == ["usage", "usage"]
    assert named == [OTHERS]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("temprature", "did you mean temperature?"),
        ("canary", "supported: model, temperature"),
        ("temperature" * 200_000, "supported: model, temperature"),
    ],
    ids=["near", "far", "long"],
)
def test_a_misspelt_member_comes_with_the_one_that_was_meant(name: str, ending: str) -> None:
    with pytest.raises(UnsupportedFieldError) as raised:
        keyed({"temperature": anything, "model": text})({name: 1}, "body")
    assert raised.value.message.endswith(ending)
    assert len(raised.value.message) < 200


def test_a_member_of_the_body_itself_is_named_without_a_root() -> None:
    body = keyed({"a": keyed({"b": text}, ("b",))})
    for value, param, message in (
        ({"a": {"b": 1}}, "a.b", "'a.b' must be a string"),
        ({"a": {}}, "a.b", "'a.b' is required"),
        ({"c": 1}, "c", "'c' is no field that is known here; supported: a"),
        ({"c d": 1}, None, "there is an unknown field in the body; supported: a"),
        ([], None, "the body must be an object"),
    ):
        with pytest.raises(RequestError) as raised:
            body(value, "")
        assert (raised.value.param, raised.value.message) == (param, message)


# ---- work per request --------------------------------------------------------------------------------


class Counting(WrongValueError):
    """Counts the places that are noted."""

    places: ClassVar[list[str]] = []

    def within(self, place: str) -> WrongValueError:
        self.places.append(place)
        return super().within(place)


NESTED = keyed(
    {"rows": many(keyed({"kind": text, "cells": many(shaped({"x": keyed({"type": text})}))}))}
)


def rows(number: int, kind: Any = "a") -> dict[str, Any]:
    cells = [{"type": "x"}] * number
    return {
        "rows": [{"kind": "a", "cells": cells}] * (number - 1) + [{"kind": kind, "cells": cells}]
    }


@pytest.mark.parametrize("run", ["at once", "in steps"])
def test_places_are_noted_only_on_the_way_out_of_what_is_wrong(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "WrongValueError", Counting)
    Counting.places.clear()

    def test(value: Any) -> None:
        if run == "at once":
            NESTED.test(value)
        else:
            for _ in NESTED.in_steps(value, Leftovers()):
                pass

    test(rows(30))
    assert Counting.places == []
    with pytest.raises(WrongValueError) as raised:
        test(rows(30, kind=3))
    assert Counting.places == [".kind", "[29]", ".rows"]
    assert raised.value.at("").param == "rows[29].kind"


def test_a_long_list_is_tested_in_steps() -> None:
    steps = sum(1 for _ in many(integer()).in_steps([1] * (5 * STEP_ITEMS), Leftovers()))
    assert steps == 5
    assert sum(1 for _ in NESTED.in_steps(rows(30), Leftovers())) >= 30


@unhurried
@given(st.integers(0, 4), st.sampled_from(["a", None, 3]), st.sampled_from(["x", "y", None]))
def test_in_steps_the_same_is_refused_for_the_same_reason(
    number: int, kind: Any, cell: Any
) -> None:
    body = {"rows": [{"kind": kind, "cells": [{"type": cell}] * number}]}
    said = []
    for run in (NESTED.test, lambda value: list(NESTED.in_steps(value, Leftovers()))):
        try:
            run(body)
            said.append(None)
        except WrongValueError as wrong:
            error = wrong.at("")
            said.append((type(error), error.message, error.param))
    assert said[0] == said[1]


def test_a_scalar_of_neither_kind_is_told_what_both_are() -> None:
    check = either(text, many(text), "a string or a list of strings")
    with pytest.raises(InvalidFieldError, match="a string or a list of strings"):
        check(1, "stop")


@unhurried
@given(st.integers() | st.floats() | st.sampled_from([HUGE, -HUGE]))
def test_a_number_passes_exactly_within_its_bounds(value: float) -> None:
    inside = not (isinstance(value, float) and math.isnan(value)) and -2 <= value <= 2
    if inside:
        number(-2, 2)(value, "x")
    else:
        with pytest.raises(InvalidFieldError):
            number(-2, 2)(value, "x")


@unhurried
@given(st.lists(st.integers(), max_size=6), st.integers(0, 4), st.integers(0, 4))
def test_a_list_passes_exactly_with_so_many_items(items: list[int], low: int, high: int) -> None:
    if low <= len(items) <= high:
        many(anything, low, high)(items, "x")
    else:
        with pytest.raises(InvalidFieldError):
            many(anything, low, high)(items, "x")


def test_an_object_has_no_more_members_than_can_be_looked_at_in_one_go() -> None:
    value = {f"field_{number}": 1 for number in range(MAX_MEMBERS + 1)}
    with pytest.raises(WrongValueError, match="at most 1024 members"):
        exhaust(keyed({"a": text}).in_steps(value, Leftovers()))


def test_what_is_left_out_is_kept_for_whoever_frees_it() -> None:
    left = Leftovers()
    value = [{"a": "b", "large": [1] * 9}, {"a": "c", "none": None, "small": 1}]
    exhaust(many(keyed({"a": text})).in_steps(value, left))
    assert left.taken == [[1] * 9]
