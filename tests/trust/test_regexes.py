"""Regular expressions: those that would stop an engine are refused, ordinary ones are not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.trust.regexes import MAX_CHARACTERS, objection

GOOD = (
    "",
    "[0-9]{1,3}",
    r"^[a-z]+(-[a-z]+)*$",
    r"^(\d{1,3}\.){3}\d{1,3}$",
    r"^[\w.+-]+@([\w-]+\.)+[a-z]{2,}$",
    r"^([A-Z][a-z]+ ?)+$",
    r"^(\+\d{1,3})?[\s-]?(\d{3}[\s-]?){2}\d{4}$",
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    r"(yes|no|maybe)",
    r".*.*x",
    r"\w+( \w+)*",
    r"(a|b|ab)*c",
    r"(?:[a-z]{2}){1,8}",
    r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z)?$",
    "[é-ü]+(ß[é-ü]+)?",
)
BAD = (
    r"(((.*)*)*)*x",
    r"(.*)*",
    r"(.+)+x",
    r"(\w+\s?)*",
    r"(.{1,1000}){1,1000}",
    r"(.{0,3}|.{0,10})*z",
    r"(.?.?.?.?)*z",
    r"(.?){200}",
    r"(a|b*)*",
    r"(([a-z]+ ?)+x?)+y",
    r"([a-z]+[a-f]+)+",
    r"(é+ü?)+",
    r"[^\s\S]",
    r"(?=a)b",
    r"(a)\1",
    r"(a",
    r"\p{L}",
    "a" * (MAX_CHARACTERS + 1),
    "(" * 500 + "a" + ")" * 500,
)


@pytest.mark.parametrize("pattern", GOOD)
def test_an_ordinary_expression_passes(pattern: str) -> None:
    assert objection(pattern) is None


@pytest.mark.parametrize("pattern", BAD)
def test_one_that_can_be_read_in_many_ways_or_in_none_is_refused(pattern: str) -> None:
    assert objection(pattern)


@settings(deadline=None)
@given(st.text(alphabet="ab.*+?(){}[]|\\d1,^$- ", max_size=30))
def test_any_text_is_judged_without_a_crash(pattern: str) -> None:
    assert objection(pattern) is None or isinstance(objection(pattern), str)
