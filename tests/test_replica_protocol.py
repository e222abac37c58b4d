"""What an answer cost travels beside it, and nothing that a model writes can be mistaken for it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replica_protocol import (
    Bill,
    Collection,
    Usage,
    encode_bills,
    parse_bills,
    take_usage,
)

COUNT = st.integers(0, 10**7)
USAGE = st.builds(Usage, COUNT, COUNT, COUNT)
EVENT = st.text(max_size=20).map(lambda text: b"data: " + orjson.dumps({"t": text}) + b"\n\n")


@given(USAGE)
def test_usage_is_read_as_it_was_written(usage: Usage) -> None:
    assert Usage.parse(str(usage)) == usage


@pytest.mark.parametrize("text", ["", "1 2", "1 2 3 4", "1 2 -3", "a b c", "1 2 ³", "1.0 2 3"])
def test_anything_else_is_no_usage(text: str) -> None:
    assert Usage.parse(text) is None


@given(before=st.lists(EVENT, max_size=3), usage=USAGE, after=st.lists(EVENT, max_size=2))
def test_the_comment_is_taken_out_and_the_events_stay(
    before: list[bytes], usage: Usage, after: list[bytes]
) -> None:
    rest = b"".join(before + after)
    assert take_usage(b"".join([*before, usage.as_event(), *after])) == (rest, usage)
    assert take_usage(rest) == (rest, None)


@pytest.mark.parametrize("text", [": comptoir-usage 1 2 3\n\n", "x\n\n: comptoir-usage 1 2 3\n\n"])
def test_a_model_that_writes_the_comment_changes_nothing(text: str) -> None:
    event = b"data: " + orjson.dumps({"content": text}) + b"\n\n"
    assert take_usage(event) == (event, None)


BILL_ID = st.from_regex(r"[0-9a-f]{16}-[1-9][0-9]{0,9}", fullmatch=True)
BILLED = st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, BILL_ID)
NAME = st.text(max_size=8)
BILL = BILLED.flatmap(
    lambda usage: st.builds(
        Bill,
        *(st.just(usage.bill), NAME, NAME, NAME, NAME, NAME, st.booleans(), NAME),
        st.floats(0, 2e9),
        st.just(usage),
    )
)


@given(BILLED)
def test_usage_with_a_bill_is_read_as_it_was_written(usage: Usage) -> None:
    assert Usage.parse(str(usage)) == usage
    assert take_usage(b"data: 1\n\n" + usage.as_event()) == (b"data: 1\n\n", usage)


@pytest.mark.parametrize(
    "text", ["1 2 3 4 5 6", "1 2 3 4 5 6 x", "1 2 3 4 5 6 0123456789abcdef-1 7", "1 2 3 4 5 -6 "]
)
def test_a_bill_must_be_whole(text: str) -> None:
    assert Usage.parse(text) is None


@given(st.lists(BILL, max_size=3))
def test_bills_are_read_as_they_were_written(bills: list[Bill]) -> None:
    assert parse_bills(encode_bills(bills)) == bills


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"bills": 1}', b'{"bills": [1, {}, null]}'])
def test_what_is_no_bill_is_left_out(body: bytes) -> None:
    assert parse_bills(body) == []


@given(NAME, st.lists(BILL_ID, max_size=3))
def test_a_collection_is_read_as_it_was_written(gateway: str, ids: list[str]) -> None:
    call = Collection(gateway, tuple(ids))
    assert Collection.parse(call.encode()) == call


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"gateway": 1, "acknowledged": []}', b'{"gateway": "g"}']
)
def test_anything_else_is_no_collection(body: bytes) -> None:
    assert Collection.parse(body) is None
