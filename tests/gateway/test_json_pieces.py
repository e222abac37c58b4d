"""A text parsed in pieces is what orjson makes of it as a whole, right or wrong."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidFieldError, MalformedJsonError
from serving.gateway import json_pieces
from serving.gateway.json_pieces import many_values_in_steps, parse_in_steps

# A busy machine is no failure.
unhurried = settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
NO_LIMIT = 10**9


@pytest.fixture(params=[1, 2, 7], autouse=True)
def small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few tokens, so that small texts are cut everywhere."""
    monkeypatch.setattr(json_pieces, "PIECE_TOKENS", request.param)
    monkeypatch.setattr(json_pieces, "PIECE_BYTES", 8 * request.param)
    monkeypatch.setattr(json_pieces, "STEP_TOKENS", request.param)
    monkeypatch.setattr(json_pieces, "STEP_BYTES", 8 * request.param)


def run(steps: Generator[None, None, Any]) -> tuple[Any, int]:
    """What comes out, and in how many steps."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return over.value, count
        count += 1


def parsed(text: bytes) -> Any:
    return run(parse_in_steps(text, NO_LIMIT))[0]


def outcome(parse: Any, text: bytes) -> Any:
    try:
        value = parse(text)
    except (orjson.JSONDecodeError, MalformedJsonError):
        return "malformed"
    # Not by `==` alone: 1 is not 1.0 and not true; and members keep their order.
    return repr(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ['"', "\\", '\\"', "],[", "},{", "a,b", "\n", "é" * 40, "x" * 600, "\\" * 301]
    )
    | st.lists(st.integers(0, 9), min_size=5, max_size=60),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=40,
)


@unhurried
@given(JSON, st.booleans())
def test_a_right_text_is_read_as_orjson_reads_it(value: Any, indented: bool) -> None:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indented else 0)
    assert outcome(parsed, text) == outcome(orjson.loads, text)


@unhurried
@given(JSON, st.data())
def test_a_changed_text_is_read_or_refused_as_by_orjson(value: Any, data: st.DataObject) -> None:
    text = bytearray(orjson.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = min(len(text), at + data.draw(st.integers(0, 3)))
        text[at:end] = data.draw(
            st.sampled_from([*b'[]{},:"\\ 1-.eE\n', *b"tn\x00\xff"]).map(lambda one: bytes([one]))
            | st.sampled_from([b"", b",,", b"[1,", b'{"a":', b"}]", b'"a":1', b"null", b"1,2,3,4"])
        )
    assert outcome(parsed, bytes(text)) == outcome(orjson.loads, bytes(text))


@unhurried
@given(
    st.lists(
        st.sampled_from([*"[]{},:", '"a"', "1", " ", '"a":', "[]", "{}", "[1,2,3,4,5,6]"]),
        max_size=24,
    )
)
def test_any_order_of_tokens_is_read_or_refused_as_by_orjson(tokens: list[str]) -> None:
    text = "".join(tokens).encode()
    assert outcome(parsed, text) == outcome(orjson.loads, text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"1",
        b' "a" ',
        b"[] 1",
        b"[][]",
        b"[1,2,3,]",
        b"[1,,2]",
        b"[,1]",
        b"{,}",
        b'{"a":1,"a":2,"a":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]}',
        b'{"a":[1,2,3],"b":[[1],[2],[[3,4],[5]]],"a":{"c":[1,2,{"d":[]}]}}',
        b'{"a" "b":[1,[2,[3]]]}',
        b"{1:[[1],[2]]}",
        b"[1,2 [3,[4]]]",
        b"[[1],[2]3,[[4]]]",
        b"[[[1],[2]],[[3],[4]]",
        b"[[[1],[2]]}",
        b'{"a":[[1],[2]],}',
        b'["' + b"\\" * 999 + b'"]',
        b'["' + b"\\" * 1000 + b'"]',
        b'["' + b'\\"' * 999 + b'"]',
        b'["' + b"x" * 5000,
        b"[" * 2000 + b"]" * 2000,
        b"[1,2,3,4,5,6,7,8,9,01]",
        b"[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,nan]",
        b'[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,"a",[1],2,3,4,5]',
    ],
)
def test_an_odd_text_is_read_or_refused_as_by_orjson(text: bytes) -> None:
    assert outcome(parsed, text) == outcome(orjson.loads, text)


def test_an_error_is_named_by_its_line_and_column() -> None:
    text = b'{"messages": [\n  {"role": "user"},\n  {"role": oops},\n  {"role": "user"}\n]}'
    with pytest.raises(MalformedJsonError, match=r"line 3, column 12"):
        parsed(text)


def test_lists_and_objects_are_bounded_before_they_are_made() -> None:
    text = orjson.dumps({"a": [[]] * 50})
    run(parse_in_steps(text, 52))
    with pytest.raises(InvalidFieldError, match="at most 51"):
        run(parse_in_steps(text, 51))
    with pytest.raises(InvalidFieldError, match="at most 100"):
        run(parse_in_steps(b"[" * 1_000_000, 100))


def test_a_long_text_is_parsed_in_many_steps() -> None:
    for value in ([1] * 20_000, [{}] * 1000, ["a"] * 1000, dict.fromkeys(map(str, range(1000)), 1)):
        assert run(parse_in_steps(orjson.dumps(value), NO_LIMIT))[1] >= 30


def test_few_values_need_no_pieces_however_long_they_are() -> None:
    assert run(many_values_in_steps(b'"' + b"x" * 5000 + b'"'))[0] is False
    assert run(many_values_in_steps(b"[" + b"1," * 50 + b"1]"))[0] is True


def test_the_members_of_one_object_are_bounded() -> None:
    with pytest.raises(InvalidFieldError, match="too many members"):
        parsed(orjson.dumps(dict.fromkeys(map(str, range(json_pieces.MAX_MEMBERS + 50)), 1)))
    parsed(orjson.dumps(dict.fromkeys(map(str, range(json_pieces.MAX_MEMBERS - 50)), 1)))
