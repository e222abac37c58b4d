"""What an answer cost travels beside it, and nothing that a model writes can be mistaken for it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replica_protocol import Usage, take_usage

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
