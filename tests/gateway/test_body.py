"""Bodies: what is read whole, what in pieces, and that writing in pieces changes nothing."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidFieldError
from serving.gateway import body
from serving.gateway.turns import Turns
from serving.trust.fields import Endpoint
from tests.gateway.conftest import SiteFactory

CHAT: dict[str, Any] = {"model": "fake", "max_tokens": 1}
USER = {"role": "user", "content": "hello"}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PIECE_CHARACTERS", 8)
    monkeypatch.setattr(body, "PIECE_VALUES", 3)
    monkeypatch.setattr(body, "PIECE_VALUES", 3)


def run(steps: Generator[None, None, Any]) -> tuple[Any, int]:
    """What comes out, and in how many steps."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as over:
            return over.value, count
        count += 1


# ---- large bodies ------------------------------------------------------------------------------------


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["é中😀" * 9, '"\\' * 9, "\x00\x1f" * 9])
    | st.lists(st.integers(0, 99), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=30,
)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text(max_size=4), JSON, max_size=5))
def test_written_in_pieces_a_body_is_the_same(small_pieces: None, value: dict[str, Any]) -> None:
    text, _ = run(body.encode_in_steps(value))
    assert text == body.encode(value)


def test_a_large_body_is_written_in_many_pieces(small_pieces: None) -> None:
    for value in ({"a": "x" * 800}, {"a": [1] * 800}, {"a": [{"b": []}] * 800}):
        assert run(body.encode_in_steps(value))[1] >= 100


@pytest.mark.parametrize("size", [300, 5000])
def test_what_is_too_deep_to_write_is_refused(small_pieces: None, size: int) -> None:
    deep: Any = "x" * 100
    for _ in range(size):
        deep = [deep]
    with pytest.raises(InvalidFieldError, match="too deeply"):
        run(body.encode_in_steps({"a": deep}))


class Counted(Turns):
    """Counts what is run in slices."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    async def run(self, steps: Generator[None, None, Any]) -> Any:
        self.runs += 1
        return await super().run(steps)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr("serving.gateway.reading.Turns", lambda: counted)
    return counted


async def test_a_small_body_is_handled_at_once(make_site: SiteFactory, turns: Counted) -> None:
    site = await make_site()
    await site.client.post("/v1/chat/completions", json=CHAT | {"messages": [USER]})
    assert turns.runs == 0


async def test_a_large_body_is_handled_in_slices_and_reaches_the_engine_unchanged(
    make_site: SiteFactory, turns: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Endpoint, "check", None)
    site = await make_site()
    messages = [
        {"role": "user", "content": [{"type": "text", "text": f"é {n}"}]} for n in range(2048)
    ]
    answer = await site.client.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert answer.status_code == 200
    assert site.engines[0].bodies[0]["messages"] == messages
    # Counting, reading, checking, writing, letting go.
    assert turns.runs == 5


async def test_a_large_body_is_refused_like_a_small_one(make_site: SiteFactory) -> None:
    site = await make_site()
    wrong = {"role": "user", "content": [{"type": "text", "text": 3}]}
    for messages, param in (
        ([USER] * 2000 + [wrong], "messages[2000].content[0].text"),
        ([USER] * 20_000, "messages"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}] * 20_000}],
            "messages[0].content",
        ),
        ([{"role": "user", "content": [{}] * 40_000}], None),
    ):
        answer = await site.client.post("/v1/chat/completions", json=CHAT | {"messages": messages})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


async def test_a_large_body_that_is_no_json_is_refused_at_its_place(make_site: SiteFactory) -> None:
    site = await make_site()
    text = orjson.dumps(CHAT | {"messages": [USER] * 2000})
    answer = await site.client.post(
        "/v1/chat/completions",
        content=text[:-2] + b",}]}",
        headers={"content-type": "application/json"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert f"column {len(text)}" in answer.json()["error"]["message"]


def test_a_body_that_is_not_needed_is_given_back_little_by_little(small_pieces: None) -> None:
    many = [{"n": number, "of": [1, 2, 3]} for number in range(100)]
    kept = {"a": [1] * 100, "b": "text", "c": {"d": [1] * 100, "e": many}}
    nodes = 100 + 1 + 100 + 100 * 6
    _, steps = run(body.discard_in_steps(kept))
    # However deep it lies: so much at a time.
    assert steps > nodes / body.PIECE_VALUES / 2
    assert not kept
    assert not many
