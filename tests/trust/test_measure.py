"""A value fits exactly when looking at all of it finds nothing that is too much."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.trust.checker import WrongValueError
from serving.trust.measure import fits
from serving.trust.sizes import sized

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@unhurried
@given(JSON, st.integers(1, 12), st.integers(1, 4), st.none() | st.integers(0, 12))
def test_it_says_the_same_as_the_one_that_says_why(
    value: Any, values: int, depth: int, characters: int | None
) -> None:
    try:
        sized(value, values, depth, characters)
        is_small = True
    except WrongValueError:
        is_small = False
    assert fits(value, values, depth, characters) == is_small


@pytest.mark.parametrize("levels", [1, 5, 20])
def test_without_a_bound_on_levels_only_values_count(levels: int) -> None:
    value: Any = json.loads("[" * levels + "]" * levels)
    assert fits(value, levels)
    assert not fits(value, levels - 1)


class Unlooked(list[Any]):
    """A list whose members must not be touched."""

    def __iter__(self) -> Any:
        raise AssertionError


def test_of_what_is_too_large_no_member_is_looked_at() -> None:
    assert not fits([[0] * 10**6, [Unlooked([0])]], 1000)
